/**
 * Header fields: the offset of each from its header's start (bytes), the masks of bit fields, and protocol constants.
 *
 * Per-packet code copies them: `import * as field`, then `const { IPV4_SRC } = field`. V8 folds a copy into machine code,
 * but reads an imported constant from memory on each use, which doubles the time of a header read.
 */

import { Protocol } from "./protocol.ts";

// Specification: IPv4, RFC 791 section 3.1 (diagram: ipv4.ts)
export const IPV4_MAX_LENGTH = 65_535;
export const IPV4_MIN_MTU = 68; // section 3.2: every link carries packets of this length
export const IPV4_SERVICE = 0; // the word of version, IHL, DSCP and ECN
export const IPV4_TOTAL_LENGTH = 2;
export const IPV4_ID = 4;
export const IPV4_FLAGS = 6; // the word of flags and fragment offset
export const IPV4_TTL = 8; // the word of TTL and protocol
export const IPV4_PROTOCOL = 9;
export const IPV4_CHECKSUM = 10;
export const IPV4_SRC = 12;
export const IPV4_DST = 16;
export const IPV4_HEADER = 20; // without options, which start here
export const IPV4_PLAIN = 0x45; // the first byte without options
export const DONT_FRAGMENT = 0x4000;
export const MORE_FRAGMENTS = 0x2000;
export const FRAGMENT_BITS = 0x3fff; // more fragments and fragment offset
export const FRAGMENT_OFFSET = 0x1fff; // in units of 8 bytes

// Specification: options of IPv4 (RFC 791 section 3.1) and TCP (RFC 9293 section 3.2)
export const END_OF_OPTIONS = 0;
export const NO_OPERATION = 1;

// Specification: ECN field of IPv4 and IPv6, RFC 3168 section 5
export const ECN_NOT_CAPABLE = 0;
export const ECN_CONGESTION_EXPERIENCED = 3;

// Specification: IPv6, RFC 8200 section 3 (diagram: ipv6.ts)
export const IPV6_MIN_MTU = 1280; // section 5
export const IPV6_MAX_PAYLOAD = 65_535;
export const IPV6_TRAFFIC_CLASS = 0; // the word of version, traffic class and the first flow label bits
export const IPV6_FLOW_LABEL = 0; // the double word of all three
export const IPV6_PAYLOAD_LENGTH = 4;
export const IPV6_NEXT_HEADER = 6; // the word of next header and hop limit
export const IPV6_HOP_LIMIT = 7;
export const IPV6_SRC = 8;
export const IPV6_DST = 24;
export const IPV6_HEADER = 40;

// Specification: IPv6 extension headers, RFC 8200 sections 4.3 to 4.6 (diagram: ipv6_extensions.ts)
export const EXTENSION_LENGTH = 1; // beyond the first 8 bytes, in units of 8 bytes
export const EXTENSION_MIN_LENGTH = 8;
export const FRAGMENT_HEADER = 8; // length of the Fragment header
export const FRAGMENT_WORD = 2; // the word of offset, reserved bits and more fragments
export const FRAGMENT_ID = 4;
export const FRAGMENT_OFFSET_IPV6 = 0xfff8; // in bytes
export const MORE_FRAGMENTS_IPV6 = 0x0001;
export const ROUTING_TYPE = 2;
export const ROUTING_SEGMENTS_LEFT = 3;
export const ROUTING_ADDRESSES = 8;
export const ROUTING_SOURCE = 0; // type, RFC 2460 section 4.4, deprecated by RFC 5095
export const ROUTING_MOBILE = 2; // type, RFC 6275 section 6.4
export const ROUTING_SEGMENTS = 4; // type, RFC 8754 section 2

// Specification: ports of TCP, UDP, UDP-Lite, DCCP and SCTP
export const SRC_PORT = 0;
export const DST_PORT = 2;

// Specification: TCP, RFC 9293 section 3.1 (diagram: tcp.ts)
export const TCP_SEQ = 4;
export const TCP_ACK = 8;
export const TCP_FLAGS = 12; // the word of data offset and flags; a double word with the window
export const TCP_FLAGS_BYTE = 13; // FIN to CWR
export const TCP_WINDOW = 14;
export const TCP_CHECKSUM = 16;
export const TCP_URGENT = 18;
export const TCP_HEADER = 20; // without options, which start here
export const TCP_MAX_OPTIONS = 40;
export const TCP_RESERVED = 0x0f00;
export const TCP_MAX_WINDOW_SCALE = 14; // RFC 7323 section 2.3

// Specification: UDP, RFC 768 (diagram: udp.ts)
export const UDP_MAX_LENGTH = 65_535;
export const UDP_LENGTH = 4;
export const UDP_CHECKSUM = 6; // also in UDP-Lite, RFC 3828 section 3.1, and DCCP, RFC 4340 section 5.1
export const UDP_HEADER = 8;

/** Minimum header length by protocol (bytes; DCCP: RFC 4340, SCTP: RFC 9260); 0 for a protocol without ports. */
export const MIN_HEADERS: Uint8Array = new Uint8Array(256);
MIN_HEADERS[Protocol.Tcp] = TCP_HEADER;
MIN_HEADERS[Protocol.Udp] = MIN_HEADERS[Protocol.UdpLite] = UDP_HEADER;
MIN_HEADERS[Protocol.Dccp] = MIN_HEADERS[Protocol.Sctp] = 12;

// Specification: ICMP, RFC 792; ICMPv6, RFC 4443 section 2.1 (diagrams: icmpv4.ts, icmpv6.ts)
export const ICMP_TYPE = 0; // the word of type and code
export const ICMP_CODE = 1;
export const ICMP_CHECKSUM = 2;
export const ICMP_REST = 4; // the double word of identifier and sequence number
export const ICMP_ID = 4;
export const ICMP_SEQ = 6;
export const ICMP_HEADER = 8;
export const ICMPV4_MAX_ERROR = 576; // RFC 1812 section 4.3.2.3: length of an error with its IP header
