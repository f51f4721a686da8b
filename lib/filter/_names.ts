/** The names that a filter may use for numbers and protocols. */

/** What `tcp` and its like stand for. */
// Specification: IANA "Protocol Numbers"
export const PROTOCOLS: ReadonlyMap<string, number> = new Map([
  ["icmp", 1],
  ["igmp", 2],
  ["tcp", 6],
  ["igrp", 9],
  ["udp", 17],
  ["esp", 50],
  ["ah", 51],
  ["icmp6", 58],
  ["pim", 103],
  ["vrrp", 112],
  ["carp", 112],
  ["sctp", 132],
]);

/** Names that stand behind `proto`, beside those above with a backslash. */
export const PROTOCOL_NAMES: ReadonlyMap<string, number> = new Map([
  ...PROTOCOLS,
  ["ipencap", 4],
  ["egp", 8],
  ["igp", 9],
  ["dccp", 33],
  ["ipv6", 41],
  ["ipv6-route", 43],
  ["ipv6-frag", 44],
  ["gre", 47],
  ["ipv6-icmp", 58],
  ["ipv6-nonxt", 59],
  ["ipv6-opts", 60],
  ["eigrp", 88],
  ["ospf", 89],
  ["ipip", 94],
  ["l2tp", 115],
  ["udplite", 136],
]);

// Specification: RFC 792, 4443, 9293; the names are those of pcap-filter(7)
export const CONSTANTS: ReadonlyMap<string, number> = new Map([
  ["icmptype", 0],
  ["icmpcode", 1],
  ["icmp-echoreply", 0],
  ["icmp-unreach", 3],
  ["icmp-sourcequench", 4],
  ["icmp-redirect", 5],
  ["icmp-echo", 8],
  ["icmp-routeradvert", 9],
  ["icmp-routersolicit", 10],
  ["icmp-timxceed", 11],
  ["icmp-paramprob", 12],
  ["icmp-tstamp", 13],
  ["icmp-tstampreply", 14],
  ["icmp-ireq", 15],
  ["icmp-ireqreply", 16],
  ["icmp-maskreq", 17],
  ["icmp-maskreply", 18],
  ["icmp6type", 0],
  ["icmp6code", 1],
  ["icmp6-destinationunreach", 1],
  ["icmp6-packettoobig", 2],
  ["icmp6-timeexceeded", 3],
  ["icmp6-parameterproblem", 4],
  ["icmp6-echo", 128],
  ["icmp6-echoreply", 129],
  ["icmp6-multicastlistenerquery", 130],
  ["icmp6-multicastlistenerreportv1", 131],
  ["icmp6-multicastlistenerdone", 132],
  ["icmp6-routersolicit", 133],
  ["icmp6-routeradvert", 134],
  ["icmp6-neighborsolicit", 135],
  ["icmp6-neighboradvert", 136],
  ["icmp6-redirect", 137],
  ["icmp6-multicastlistenerreportv2", 143],
  ["tcpflags", 13],
  ["tcp-fin", 1],
  ["tcp-syn", 2],
  ["tcp-rst", 4],
  ["tcp-push", 8],
  ["tcp-ack", 16],
  ["tcp-urg", 32],
  ["tcp-ece", 64],
  ["tcp-cwr", 128],
]);

/** A service's port, over the one protocol that it has or, with 0, over any. */
export interface Service {
  /** The port. */
  readonly port: number;
  /** 6, 17, or 0 for both. */
  readonly protocol: number;
}

const TCP = 6;
const UDP = 17;
// Specification: IANA "Service Name and Transport Protocol Port Number Registry", as Debian's /etc/services has it
export const SERVICES: ReadonlyMap<string, Service> = new Map(
  ([
    ["bgp", 179, TCP],
    ["bootpc", 68, UDP],
    ["bootps", 67, UDP],
    ["domain", 53, 0],
    ["domain-s", 853, 0],
    ["ftp", 21, TCP],
    ["http", 80, TCP],
    ["http-alt", 8080, TCP],
    ["https", 443, 0],
    ["imap2", 143, TCP],
    ["imaps", 993, TCP],
    ["ipsec-nat-t", 4500, UDP],
    ["isakmp", 500, UDP],
    ["kerberos", 88, 0],
    ["ldap", 389, 0],
    ["ldaps", 636, 0],
    ["mdns", 5353, UDP],
    ["microsoft-ds", 445, TCP],
    ["mysql", 3306, TCP],
    ["nfs", 2049, 0],
    ["ntp", 123, UDP],
    ["openvpn", 1194, 0],
    ["pop3", 110, TCP],
    ["pop3s", 995, TCP],
    ["postgresql", 5432, TCP],
    ["sip", 5060, 0],
    ["smtp", 25, TCP],
    ["snmp", 161, 0],
    ["ssh", 22, TCP],
    ["submission", 587, TCP],
    ["sunrpc", 111, 0],
    ["syslog", 514, UDP],
    ["telnet", 23, TCP],
    ["tftp", 69, UDP],
    ["whois", 43, TCP],
  ] as const).map(([name, port, protocol]) => [name, { port, protocol }]),
);

/** Words of pcap-filter(7) that a packet without a link layer, or this compiler, has no answer to. */
export const REFUSED: ReadonlyMap<string, string> = new Map([
  ...[
    ..."ether link wlan fddi tr ppp slip arp rarp vlan mpls pppoed pppoes llc atalk aarp decnet lat sca"
      .split(" "),
    ..."moprc mopdl iso stp ipx netbeui clnp isis lane radio gateway".split(" "),
  ].map((word) => [word, `"${word}" needs a link layer, which a tunnel's packets have not`] as const),
  ["broadcast", `"broadcast" needs a netmask: name the address with "dst host"`],
  ["protochain", `"protochain" is not supported: "proto" looks at the first header`],
  ["geneve", `"geneve" is not supported`],
  ["vxlan", `"vxlan" is not supported`],
  ["ifindex", `"ifindex" is not supported`],
]);
