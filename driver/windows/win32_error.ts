/** Error numbers of Windows, their names, and the error classes that they map to. */

import { DriverError } from "../error.ts";

// Specification
/** winerror.h */
export const Win32 = {
  NO_ERROR: 0,
  ERROR_FILE_NOT_FOUND: 2,
  ERROR_PATH_NOT_FOUND: 3,
  ERROR_ACCESS_DENIED: 5,
  ERROR_INVALID_HANDLE: 6,
  ERROR_INVALID_DATA: 13,
  ERROR_OUTOFMEMORY: 14,
  ERROR_GEN_FAILURE: 31,
  ERROR_SHARING_VIOLATION: 32,
  ERROR_HANDLE_EOF: 38,
  ERROR_NOT_SUPPORTED: 50,
  ERROR_DUP_NAME: 52,
  ERROR_INVALID_PARAMETER: 87,
  ERROR_BUFFER_OVERFLOW: 111,
  ERROR_MOD_NOT_FOUND: 126,
  ERROR_PROC_NOT_FOUND: 127,
  ERROR_BAD_EXE_FORMAT: 193,
  ERROR_NOT_FOUND: 1168,
  ERROR_NO_MATCH: 1169,
  ERROR_ALREADY_INITIALIZED: 1247,
  ERROR_TIMEOUT: 1460,
  ERROR_DEVICE_NOT_AVAILABLE: 4319,
  ERROR_OBJECT_ALREADY_EXISTS: 5010,
  WSAEACCES: 10013,
  WSAEINVAL: 10022,
  WSAEWOULDBLOCK: 10035,
  WSAENOTSOCK: 10038,
  WSAEMSGSIZE: 10040,
  WSAEAFNOSUPPORT: 10047,
  WSAEADDRINUSE: 10048,
  WSAEADDRNOTAVAIL: 10049,
  WSAENETUNREACH: 10051,
  WSAENETRESET: 10052,
  WSAECONNRESET: 10054,
  WSAENOBUFS: 10055,
  WSAEHOSTUNREACH: 10065,
} as const;

/** winerror.h: upper half of the HRESULTs that HRESULT_FROM_WIN32 creates. */
const HRESULT_FROM_WIN32 = 0x8007;

// Implementation
const NAMES = new Map<number, string>(Object.entries(Win32).map(([name, code]) => [code, name]));

/** Returns the name of an error number, such as `ERROR_ACCESS_DENIED`. If it is not listed, returns `error 200`. */
export function win32Name(code: number): string {
  return NAMES.get(code) ?? (code > 0xffff ? `error 0x${code.toString(16).toUpperCase()}` : `error ${code}`);
}

/** Returns the error number in an HRESULT from HRESULT_FROM_WIN32, or any other number unchanged. */
export function fromHresult(code: number): number {
  return code >>> 16 === HRESULT_FROM_WIN32 ? code & 0xffff : code;
}

/**
 * Creates the error of a failed call. Its class is `PermissionDenied`, `AddrInUse`, `NotFound` or `NotSupported` of
 * `Deno.errors` if one of them fits, otherwise {@linkcode DriverError}.
 *
 * @param attempt Failed action, such as `open device "tun0"`; the message is *Cannot open device "tun0": ...*.
 * @param remedy Remedy, or a more precise cause.
 */
export function win32Error(
  attempt: string,
  operation: string,
  code: number,
  remedy?: string,
  options?: ErrorOptions,
): Error {
  const name = win32Name(code);
  const cause = name.startsWith("error ") ? name : `${name} (${code})`;
  const message = `Cannot ${attempt}: ${cause}${remedy === undefined ? "" : `: ${remedy}`}`;
  switch (code) {
    case Win32.ERROR_ACCESS_DENIED:
    case Win32.WSAEACCES:
      return new Deno.errors.PermissionDenied(message, options);
    case Win32.WSAEADDRINUSE:
      return new Deno.errors.AddrInUse(message, options);
    case Win32.ERROR_FILE_NOT_FOUND:
    case Win32.ERROR_PATH_NOT_FOUND:
    case Win32.ERROR_MOD_NOT_FOUND:
    case Win32.ERROR_NOT_FOUND:
      return new Deno.errors.NotFound(message, options);
    case Win32.ERROR_NOT_SUPPORTED:
    case Win32.ERROR_PROC_NOT_FOUND:
    case Win32.ERROR_BAD_EXE_FORMAT:
    case Win32.WSAEAFNOSUPPORT:
      return new Deno.errors.NotSupported(message, options);
    default:
      return new DriverError(message, { operation, code: name, errno: code, ...options });
  }
}
