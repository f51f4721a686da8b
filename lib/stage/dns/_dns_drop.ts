/** Reasons for which {@linkcode DnsResolver} drops packets. */

/** Drop reasons of {@linkcode DnsResolver}. */
export const DnsDrop = {
  /** A response, or less than a DNS header. */
  NotAQuery: "not a query",
  /** A retransmission of a query that waits for its answer. */
  RepeatedQuery: "repeated query",
  /** An IP fragment. */
  Fragment: "fragment of a query",
  /** Source port 0, which cannot receive an answer (RFC 768). */
  FromPortZero: "from port 0",
  /** A source address that cannot receive an answer (RFC 1812 section 5.3.7). */
  MartianSource: "martian source",
  /** The UDP or TCP checksum is wrong. */
  BadChecksum: "bad checksum",
  /** A TCP packet, answered with RST, that opens no connection and belongs to none. */
  NoConnection: "no such connection",
  /** A TCP connection, answered with RST, for which no place is free. */
  TooManyConnections: "too many connections",
  /** A TCP packet, answered with RST, with `connections: 0`. */
  NoTcp: "no DNS over TCP",
  /** A super-packet of more than 64 datagrams. */
  TooManySegments: "too many segments",
  /** No memory for the datagrams of a super-packet. */
  PoolEmpty: "pool empty",
} as const;
/** One of {@linkcode DnsDrop}'s values. */
export type DnsDrop = typeof DnsDrop[keyof typeof DnsDrop];
