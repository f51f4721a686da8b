/** Protocol numbers of IP. */

/** Values of IPv4's `protocol` and IPv6's `nextHeader` (IANA "Assigned Internet Protocol Numbers"). */
export const Protocol = {
  HopByHop: 0,
  Icmp: 1,
  Ipv4: 4,
  Tcp: 6,
  Udp: 17,
  Dccp: 33,
  Ipv6: 41,
  Routing: 43,
  Fragment: 44,
  Gre: 47,
  Esp: 50,
  Ah: 51,
  Icmpv6: 58,
  NoNext: 59,
  DestinationOptions: 60,
  Sctp: 132,
  UdpLite: 136,
} as const;
