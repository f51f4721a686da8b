/** Words of the filter language: constants, protocols, ports, and keywords that do not apply to IP packets. */

import { Protocol } from "../wire/protocol.ts";

// Specification: pcap-filter(7)

/** Constants: offsets, ICMP types, TCP flags. */
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
  ["icmp6-routerrenum", 138],
  ["icmp6-nodeinformationquery", 139],
  ["icmp6-nodeinformationresponse", 140],
  ["icmp6-ineighbordiscoverysolicit", 141],
  ["icmp6-ineighbordiscoveryadvert", 142],
  ["icmp6-multicastlistenerreportv2", 143],
  ["icmp6-homeagentdiscoveryrequest", 144],
  ["icmp6-homeagentdiscoveryreply", 145],
  ["icmp6-mobileprefixsolicit", 146],
  ["icmp6-mobileprefixadvert", 147],
  ["icmp6-certpathsolicit", 148],
  ["icmp6-certpathadvert", 149],
  ["icmp6-multicastrouteradvert", 151],
  ["icmp6-multicastroutersolicit", 152],
  ["icmp6-multicastrouterterm", 153],
  ["tcpflags", 13],
  ["tcp-fin", 0x01],
  ["tcp-syn", 0x02],
  ["tcp-rst", 0x04],
  ["tcp-push", 0x08],
  ["tcp-ack", 0x10],
  ["tcp-urg", 0x20],
  ["tcp-ece", 0x40],
  ["tcp-cwr", 0x80],
]);

/** Meaning of a protocol keyword. */
export interface ProtocolWord {
  /** Protocol number in the IP header. */
  readonly protocol: number;
  /** IP version that carries it; 0 for both. */
  readonly version: 0 | 4 | 6;
  /** Set if `word[...]` reads its bytes. */
  readonly indexed: boolean;
}

/** Keywords of protocols above IP. */
export const PROTOCOL_WORDS: ReadonlyMap<string, ProtocolWord> = new Map<string, ProtocolWord>([
  ["icmp", { protocol: Protocol.Icmp, version: 4, indexed: true }],
  ["igmp", { protocol: 2, version: 4, indexed: true }],
  ["tcp", { protocol: Protocol.Tcp, version: 0, indexed: true }],
  ["igrp", { protocol: 9, version: 4, indexed: true }],
  ["udp", { protocol: Protocol.Udp, version: 0, indexed: true }],
  ["esp", { protocol: Protocol.Esp, version: 0, indexed: false }],
  ["ah", { protocol: Protocol.Ah, version: 0, indexed: false }],
  ["icmp6", { protocol: Protocol.Icmpv6, version: 6, indexed: true }],
  ["pim", { protocol: 103, version: 0, indexed: true }],
  ["vrrp", { protocol: 112, version: 4, indexed: true }],
  ["carp", { protocol: 112, version: 4, indexed: true }],
  ["sctp", { protocol: Protocol.Sctp, version: 0, indexed: true }],
]);

/** Names after `proto` (IANA "Assigned Internet Protocol Numbers", as Debian spells them). */
export const PROTOCOL_NAMES: ReadonlyMap<string, number> = new Map([
  ["ip", 0],
  ["hopopt", Protocol.HopByHop],
  ["icmp", Protocol.Icmp],
  ["igmp", 2],
  ["ipencap", Protocol.Ipv4],
  ["tcp", Protocol.Tcp],
  ["egp", 8],
  ["igp", 9],
  ["udp", Protocol.Udp],
  ["dccp", Protocol.Dccp],
  ["ipv6", Protocol.Ipv6],
  ["ipv6-route", Protocol.Routing],
  ["ipv6-frag", Protocol.Fragment],
  ["rsvp", 46],
  ["gre", Protocol.Gre],
  ["esp", Protocol.Esp],
  ["ah", Protocol.Ah],
  ["ipv6-icmp", Protocol.Icmpv6],
  ["ipv6-nonxt", Protocol.NoNext],
  ["ipv6-opts", Protocol.DestinationOptions],
  ["eigrp", 88],
  ["ospf", 89],
  ["ipip", 94],
  ["etherip", 97],
  ["pim", 103],
  ["ipcomp", 108],
  ["vrrp", 112],
  ["l2tp", 115],
  ["sctp", Protocol.Sctp],
  ["mobility-header", 135],
  ["udplite", Protocol.UdpLite],
  ["hip", 139],
  ["shim6", 140],
]);

const BOTH = 0;

/** Number of a named port, and its protocol, or 0 for several. */
export type PortName = readonly [port: number, protocol: number];

/** Names after `port` (IANA "Service Name and Transport Protocol Port Number Registry", as Debian has them). */
export const PORT_NAMES: ReadonlyMap<string, PortName> = new Map<string, PortName>([
  ["echo", [7, BOTH]],
  ["discard", [9, BOTH]],
  ["daytime", [13, BOTH]],
  ["chargen", [19, BOTH]],
  ["ftp-data", [20, Protocol.Tcp]],
  ["ftp", [21, Protocol.Tcp]],
  ["ssh", [22, Protocol.Tcp]],
  ["telnet", [23, Protocol.Tcp]],
  ["smtp", [25, Protocol.Tcp]],
  ["time", [37, BOTH]],
  ["whois", [43, Protocol.Tcp]],
  ["tacacs", [49, BOTH]],
  ["domain", [53, BOTH]],
  ["bootps", [67, Protocol.Udp]],
  ["bootpc", [68, Protocol.Udp]],
  ["tftp", [69, Protocol.Udp]],
  ["http", [80, Protocol.Tcp]],
  ["kerberos", [88, BOTH]],
  ["pop3", [110, Protocol.Tcp]],
  ["sunrpc", [111, BOTH]],
  ["nntp", [119, Protocol.Tcp]],
  ["ntp", [123, Protocol.Udp]],
  ["netbios-ns", [137, Protocol.Udp]],
  ["netbios-dgm", [138, Protocol.Udp]],
  ["netbios-ssn", [139, Protocol.Tcp]],
  ["imap", [143, Protocol.Tcp]],
  ["imap2", [143, Protocol.Tcp]],
  ["snmp", [161, BOTH]],
  ["snmp-trap", [162, BOTH]],
  ["bgp", [179, Protocol.Tcp]],
  ["ldap", [389, BOTH]],
  ["https", [443, BOTH]],
  ["microsoft-ds", [445, Protocol.Tcp]],
  ["isakmp", [500, Protocol.Udp]],
  ["syslog", [514, BOTH]],
  ["route", [520, Protocol.Udp]],
  ["submission", [587, Protocol.Tcp]],
  ["ipp", [631, Protocol.Tcp]],
  ["ldaps", [636, BOTH]],
  ["domain-s", [853, BOTH]],
  ["rsync", [873, Protocol.Tcp]],
  ["imaps", [993, Protocol.Tcp]],
  ["pop3s", [995, Protocol.Tcp]],
  ["openvpn", [1194, BOTH]],
  ["l2tp", [1701, Protocol.Udp]],
  ["radius", [1812, BOTH]],
  ["radius-acct", [1813, BOTH]],
  ["nfs", [2049, BOTH]],
  ["mysql", [3306, Protocol.Tcp]],
  ["svn", [3690, Protocol.Tcp]],
  ["ipsec-nat-t", [4500, Protocol.Udp]],
  ["sip", [5060, BOTH]],
  ["xmpp-client", [5222, Protocol.Tcp]],
  ["xmpp-server", [5269, Protocol.Tcp]],
  ["mdns", [5353, Protocol.Udp]],
  ["postgresql", [5432, Protocol.Tcp]],
  ["x11", [6000, Protocol.Tcp]],
  ["redis", [6379, Protocol.Tcp]],
  ["http-alt", [8080, Protocol.Tcp]],
  ["git", [9418, Protocol.Tcp]],
]);

/** Keywords for the link layer and capture records, which do not apply to IP packets. */
export const LINK_WORDS: ReadonlySet<string> = new Set(
  ("link ether ppp slip fddi tr wlan arp rarp radio atalk aarp decnet lat sca moprc mopdl iso esis es-is isis " +
    "is-is l1 l2 iih lsp snp csnp psnp clnp stp ipx netbeui gateway type subtype direction dir address1 addr1 " +
    "address2 addr2 address3 addr3 address4 addr4 ra ta byte ifindex vlan mpls pppoed pppoes geneve lane llc " +
    "metac bcc oam oamf4 oamf4ec oamf4sc sc ilmic vpi vci connectmsg metaconnect on ifname rset ruleset rnr " +
    "rulenum srnr subrulenum reason action fisu lssu lsu msu hfisu hlssu hmsu sio opc dpc sls hsio hopc hdpc hsls")
    .split(" "),
);

/** Keywords of the language. */
export const KEYWORDS: ReadonlySet<string> = new Set([
  ..."dst src host net mask port portrange proto protochain less greater broadcast multicast".split(" "),
  ..."and or not len length inbound outbound ip ip6".split(" "),
  ...PROTOCOL_WORDS.keys(),
  ...LINK_WORDS,
]);
