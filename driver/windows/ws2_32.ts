/** ws2_32.dll (Winsock): symbol table. */

import { libraryError } from "../ffi.ts";
import { systemLibrary } from "./library.ts";
import { win32Error } from "./win32_error.ts";

// Only 32 bits of a SOCKET are significant, as of a HANDLE (see kernel32.ts).
const SYMBOLS = {
  // int WSAStartup(WORD VersionRequired, WSADATA *Data);
  WSAStartup: { parameters: ["u16", "buffer"], result: "i32" },
  // int WSAGetLastError(void);
  WSAGetLastError: { parameters: [], result: "i32" },
  // SOCKET WSASocketW(int af, int type, int protocol, WSAPROTOCOL_INFOW *info, GROUP group, DWORD flags);
  WSASocketW: { parameters: ["i32", "i32", "i32", "pointer", "u32", "u32"], result: "i32" },
  // int closesocket(SOCKET s);
  closesocket: { parameters: ["usize"], result: "i32" },
  // int bind(SOCKET s, const struct sockaddr *name, int namelen);
  bind: { parameters: ["usize", "buffer", "i32"], result: "i32" },
  // int getsockname(SOCKET s, struct sockaddr *name, int *namelen);
  getsockname: { parameters: ["usize", "buffer", "buffer"], result: "i32" },
  // int setsockopt(SOCKET s, int level, int optname, const char *optval, int optlen);
  setsockopt: { parameters: ["usize", "i32", "i32", "buffer", "i32"], result: "i32" },
  // int WSAIoctl(SOCKET s, DWORD code, void *in, DWORD inSize, void *out, DWORD outSize, DWORD *returned,
  //   WSAOVERLAPPED *overlapped, LPWSAOVERLAPPED_COMPLETION_ROUTINE completion);
  WSAIoctl: {
    parameters: ["usize", "u32", "buffer", "u32", "pointer", "u32", "buffer", "pointer", "pointer"],
    result: "i32",
  },
  // int WSAEventSelect(SOCKET s, WSAEVENT hEventObject, long lNetworkEvents);
  WSAEventSelect: { parameters: ["usize", "usize", "i32"], result: "i32" },
  // int recvfrom(SOCKET s, char *buf, int len, int flags, struct sockaddr *from, int *fromlen);
  recvfrom: { parameters: ["usize", "usize", "i32", "i32", "buffer", "buffer"], result: "i32" },
  // int sendto(SOCKET s, const char *buf, int len, int flags, const struct sockaddr *to, int tolen);
  sendto: { parameters: ["usize", "usize", "i32", "i32", "buffer", "i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

// Specification
// winsock2.h: MAKEWORD(2, 2), sizeof(WSADATA)
const VERSION = 0x0202;
const WSADATA_SIZE = 408;

type Ws2 = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

let opened: Ws2 | undefined;

function load(): Ws2 {
  let symbols: Ws2;
  try {
    symbols = Deno.dlopen(systemLibrary("ws2_32.dll"), SYMBOLS).symbols;
  } catch (error) {
    throw libraryError("ws2_32.dll", error);
  }
  const failed = symbols.WSAStartup(VERSION, new Uint8Array(WSADATA_SIZE));
  if (failed !== 0) throw win32Error("use sockets", "WSAStartup", failed);
  return symbols;
}

/**
 * Returns the functions of ws2_32.dll, initialised on the first call. `WSAGetLastError` is valid only in the expression
 * right after a synchronous call.
 *
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`.
 */
export function ws2(): Ws2 {
  return opened ??= load();
}
