/** Where header fields stand: those that checksums guard, and that segments of one super-packet differ in or share. */

// Specification: IPv4, RFC 791 section 3.1
export const IPV4_MAX_LENGTH = 65_535;
export const IPV4_MIN_MTU = 68; // section 3.2: every link carries so many bytes
export const IPV4_TOTAL_LENGTH = 2;
export const IPV4_ID = 4;
export const IPV4_FLAGS = 6; // the word of flags and fragment offset
export const IPV4_TTL = 8; // the word of TTL and protocol
export const IPV4_PROTOCOL = 9;
export const IPV4_CHECKSUM = 10;
export const IPV4_SRC = 12;
export const IPV4_DST = 16;
export const IPV4_HEADER = 20; // without options
export const IPV4_PLAIN = 0x45; // the first byte without options
export const DONT_FRAGMENT = 0x4000;
export const MORE_FRAGMENTS = 0x2000;
export const FRAGMENT_BITS = 0x3fff; // more fragments, and the offset
export const FRAGMENT_OFFSET = 0x1fff; // in units of 8 bytes

// Specification: IPv6, RFC 8200 section 3
export const IPV6_MIN_MTU = 1280; // section 5
export const IPV6_PAYLOAD_LENGTH = 4;
export const IPV6_NEXT_HEADER = 6; // the word of next header and hop limit
export const IPV6_SRC = 8;
export const IPV6_DST = 24;
export const IPV6_HEADER = 40;

// Specification: TCP, RFC 9293 section 3.1
export const TCP_SEQ = 4;
export const TCP_ACK = 8;
export const TCP_FLAGS = 12; // the word of data offset and flags; with the window a double word
export const TCP_WINDOW = 14;
export const TCP_CHECKSUM = 16;
export const TCP_URGENT = 18;
export const TCP_OPTIONS = 20;
export const TCP_RESERVED = 0x0f00;

// Specification: UDP, RFC 768
export const UDP_LENGTH = 4;
export { UDP_CHECKSUM } from "../core/checksum.ts";
export const UDP_HEADER = 8;

// Specification: ICMP, RFC 792; ICMPv6, RFC 4443 section 2.1
export const ICMP_CHECKSUM = 2;
/** The identifier of a query or reply. */
export const ICMP_ID = 4;
/** The header's length. */
export const ICMP_HEADER = 8;
