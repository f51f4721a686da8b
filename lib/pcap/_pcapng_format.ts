/** Constants of pcapng files. */

// Specification: draft-ietf-opsawg-pcapng. Every block:
//
//     ┌──────┬──────────────┬──────┬─────────────────────────────┬──────────────┐
//     │ type │ total length │ body │ options (code, length, ...) │ total length │    padded to 4 bytes
//     └──────┴──────────────┴──────┴─────────────────────────────┴──────────────┘
export const SECTION_HEADER = 0x0a0d0d0a;
export const INTERFACE_DESCRIPTION = 1;
export const SIMPLE_PACKET = 3;
export const ENHANCED_PACKET = 6;
export const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
export const MAJOR_VERSION = 1;
/** Bytes of a block around its body: type and both lengths. */
export const BLOCK_FRAME = 12;
export const SECTION_BODY = 16;
export const INTERFACE_BODY = 8;
export const PACKET_BODY = 20;
export const SIMPLE_PACKET_BODY = 4;

/** Options, by block. */
export const END_OF_OPTIONS = 0;
export const COMMENT = 1;
export const SECTION_APPLICATION = 4;
export const INTERFACE_NAME = 2;
export const INTERFACE_DESCRIPTION_TEXT = 3;
export const INTERFACE_RESOLUTION = 9;
export const INTERFACE_OFFSET = 14;
export const PACKET_FLAGS = 2;
export const PACKET_VERDICT = 7;

/** Directions in `epb_flags`. */
export const FLAG_INBOUND = 1;
export const FLAG_OUTBOUND = 2;
/** `epb_verdict` of an XDP program, which has the verdicts of a script: drop, pass and reply. */
export const VERDICT_XDP = 2;
export const XDP_DROP = 1;
export const XDP_PASS = 2;
export const XDP_TX = 3;

/** Link type of IP packets without a link-layer header, https://www.tcpdump.org/linktypes.html. */
export const LINK_RAW = 101;
