/** Socket addresses of macOS and FreeBSD, which start with one byte of length and one byte of family. */

import type { Address, Prefix } from "../../lib/wire/address.ts";
import { AF_INET } from "../posix/udp_socket.ts";
import { AF_LINK, type Bsd } from "./bsd.ts";
import { viewOf } from "../native_memory.ts";

// Specification
/** netinet/in.h: `struct sockaddr_in { u8 sin_len, sin_family; u16 sin_port; u8 sin_addr[4]; char sin_zero[8]; }`. */
export const SockaddrIn = { Length: 0, Family: 1, Address: 4, Size: 16 } as const;
/**
 * netinet6/in6.h: `struct sockaddr_in6 { u8 sin6_len, sin6_family; u16 sin6_port; u32 sin6_flowinfo;
 * u8 sin6_addr[16]; u32 sin6_scope_id; }`.
 */
export const SockaddrIn6 = { Address: 8, Size: 28 } as const;
/**
 * net/if_dl.h: `struct sockaddr_dl { u8 sdl_len, sdl_family; u16 sdl_index; u8 sdl_type, sdl_nlen, sdl_alen,
 * sdl_slen; char sdl_data[]; }`; the size of `sdl_data` differs between the systems.
 */
export const SockaddrDl = { Index: 2 } as const;

/** Returns an address as `struct sockaddr_in` or `struct sockaddr_in6`. */
export function sockaddr(bsd: Bsd, { family, bytes }: Address): Uint8Array<ArrayBuffer> {
  const table = family === 4 ? SockaddrIn : SockaddrIn6;
  const result = new Uint8Array(table.Size);
  result[SockaddrIn.Length] = table.Size;
  result[SockaddrIn.Family] = family === 4 ? AF_INET : bsd.AF_INET6;
  result.set(bytes, table.Address);
  return result;
}

/** Returns an interface index as `struct sockaddr_dl`; in a query, index 0 requests the index in the reply. */
export function linkSockaddr(bsd: Bsd, index: number): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(bsd.sizes.sockaddr_dl);
  result[SockaddrIn.Length] = result.length;
  result[SockaddrIn.Family] = AF_LINK;
  viewOf(result).setUint16(SockaddrDl.Index, index, true);
  return result;
}

/** Returns the length of an address in bits. */
export function bitsOf({ family }: Address): number {
  return family === 4 ? 32 : 128;
}

/** Returns the mask of a prefix, such as 255.255.255.0, as an address. */
export function netmask({ address: { family, bytes }, length }: Prefix): Address {
  const mask = bytes.map((_, i) => 0xff00 >> Math.min(8, Math.max(0, length - i * 8)));
  return { family, bytes: mask };
}
