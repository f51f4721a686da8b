/** kernel32.dll: symbol table, and functions for strings, environment variables and files. */

import { libraryError, requestFfi } from "../ffi.ts";
import { Win32, win32Error } from "./win32_error.ts";

// HANDLE, SIZE_T and pointers have 64 bits, DWORD and BOOL have 32. Only 32 bits of a HANDLE are significant, so
// results are declared with 32 bits and become numbers; parameters are declared with 64 bits.
const SYMBOLS = {
  // DWORD GetLastError(void);
  GetLastError: { parameters: [], result: "u32" },
  // void RtlMoveMemory(void *Destination, const void *Source, SIZE_T Length);
  RtlMoveMemory: { parameters: ["usize", "usize", "usize"], result: "void" },
  // HANDLE CreateEventW(LPSECURITY_ATTRIBUTES Attributes, BOOL ManualReset, BOOL InitialState, LPCWSTR Name);
  CreateEventW: { parameters: ["pointer", "i32", "i32", "pointer"], result: "u32" },
  // BOOL SetEvent(HANDLE Event);
  SetEvent: { parameters: ["usize"], result: "i32" },
  // BOOL CloseHandle(HANDLE Object);
  CloseHandle: { parameters: ["usize"], result: "i32" },
  // DWORD WaitForMultipleObjects(DWORD Count, const HANDLE *Handles, BOOL WaitAll, DWORD Milliseconds);
  WaitForMultipleObjects: { parameters: ["u32", "buffer", "i32", "u32"], result: "u32" },
  // DWORD WaitForMultipleObjects(DWORD Count, const HANDLE *Handles, BOOL WaitAll, DWORD Milliseconds);
  waitOffThread: {
    name: "WaitForMultipleObjects",
    parameters: ["u32", "buffer", "i32", "u32"],
    result: "u32",
    nonblocking: true,
  },
  // void Sleep(DWORD Milliseconds);
  Sleep: { parameters: ["u32"], result: "void" },
  // BOOL SwitchToThread(void);
  SwitchToThread: { parameters: [], result: "i32" },
  // HANDLE CreateFileW(LPCWSTR FileName, DWORD Access, DWORD ShareMode, LPSECURITY_ATTRIBUTES Attributes,
  //   DWORD CreationDisposition, DWORD FlagsAndAttributes, HANDLE TemplateFile);
  CreateFileW: { parameters: ["buffer", "u32", "u32", "pointer", "u32", "u32", "usize"], result: "i32" },
  // BOOL GetFileSizeEx(HANDLE File, LARGE_INTEGER *FileSize);
  GetFileSizeEx: { parameters: ["usize", "buffer"], result: "i32" },
  // DWORD GetFinalPathNameByHandleW(HANDLE File, LPWSTR FilePath, DWORD Size, DWORD Flags);
  GetFinalPathNameByHandleW: { parameters: ["usize", "buffer", "u32", "u32"], result: "u32" },
  // BOOL ReadFile(HANDLE File, void *Buffer, DWORD Count, DWORD *Read, LPOVERLAPPED Overlapped);
  ReadFile: { parameters: ["usize", "buffer", "u32", "buffer", "pointer"], result: "i32" },
  // DWORD GetEnvironmentVariableW(LPCWSTR Name, LPWSTR Buffer, DWORD Size);
  GetEnvironmentVariableW: { parameters: ["buffer", "buffer", "u32"], result: "u32" },
  // UINT GetSystemDirectoryW(LPWSTR Buffer, UINT Size);
  GetSystemDirectoryW: { parameters: ["buffer", "u32"], result: "u32" },
  // DWORD GetModuleFileNameW(HMODULE Module, LPWSTR Filename, DWORD Size);
  GetModuleFileNameW: { parameters: ["usize", "buffer", "u32"], result: "u32" },
  // BOOL GetModuleHandleExW(DWORD Flags, LPCWSTR ModuleName, HMODULE *Module);
  GetModuleHandleExW: { parameters: ["u32", "buffer", "buffer"], result: "i32" },
  // FARPROC GetProcAddress(HMODULE Module, LPCSTR ProcName);
  GetProcAddress: { parameters: ["usize", "buffer"], result: "usize" },
} as const satisfies Deno.ForeignLibraryInterface;

// Specification
// winnt.h, fileapi.h, libloaderapi.h
const GET_MODULE_HANDLE_EX_FLAG_PIN = 1;
const GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT = 2;
const GENERIC_READ = 0x8000_0000;
const FILE_SHARE_READ = 1;
const OPEN_EXISTING = 3;
const FILE_ATTRIBUTE_NORMAL = 0x80;
/** Low 32 bits of (HANDLE)-1. */
const INVALID_HANDLE_VALUE = -1;
/** Maximum length of a path or an environment variable (WCHARs). */
const MAX_TEXT_LENGTH = 32_768;
/** minwindef.h: size of a path without the prefix `\\?\`, including the terminating zero (WCHARs). */
export const MAX_PATH = 260;

// Implementation
/** Maximum size of a file (bytes), larger than any DLL to check. */
const MAX_FILE_LENGTH = 64 * 1024 * 1024;

type Kernel32 = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

let opened: Kernel32 | undefined;

function load(): Kernel32 {
  // The permission is requested here only, because other DLLs are found through this one.
  requestFfi("kernel32.dll");
  try {
    return Deno.dlopen("kernel32.dll", SYMBOLS).symbols;
  } catch (error) {
    throw libraryError("kernel32.dll", error);
  }
}

/**
 * Returns the functions of kernel32.dll, opened on the first call. `GetLastError` is valid only in the expression right
 * after a synchronous call, never after a nonblocking one.
 *
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`.
 */
export function kernel32(): Kernel32 {
  return opened ??= load();
}

/** Converts text to a zero-terminated UTF-16 string. */
export function wideString(text: string): Uint16Array<ArrayBuffer> {
  return Uint16Array.from({ length: text.length + 1 }, (_, i) => i < text.length ? text.charCodeAt(i) : 0);
}

/** Converts UTF-16 code units to text, up to the first zero. */
export function fromWide(units: Uint16Array): string {
  const end = units.indexOf(0);
  let text = "";
  for (const unit of end < 0 ? units : units.subarray(0, end)) text += String.fromCharCode(unit);
  return text;
}

/** Returns an environment variable, or `undefined` if it is not set or empty. Needs no `--allow-env`. */
export function environment(name: string): string | undefined {
  const units = new Uint16Array(MAX_TEXT_LENGTH);
  const length = kernel32().GetEnvironmentVariableW(wideString(name), units, units.length);
  return length === 0 || length >= units.length ? undefined : fromWide(units.subarray(0, length));
}

/** Returns the path of the running program. Needs no `--allow-read`. */
export function programPath(): string {
  const units = new Uint16Array(MAX_TEXT_LENGTH);
  const length = kernel32().GetModuleFileNameW(0n, units, units.length);
  return fromWide(units.subarray(0, length));
}

/** Keeps a DLL loaded until the process ends. Deno would unload it earlier, while threads may still run its code. */
export function pinLibrary(path: string): void {
  const module = new BigUint64Array(1);
  kernel32().GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN, wideString(path), module);
}

/** Returns the address of a function of kernel32.dll, to be passed to Windows as a callback. */
export function functionAddress(name: string): bigint {
  const module = new BigUint64Array(1);
  const { GetModuleHandleExW, GetProcAddress } = kernel32();
  GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT, wideString("kernel32.dll"), module);
  return GetProcAddress(module[0]!, new TextEncoder().encode(`${name}\0`));
}

/** A file that no process can write, replace or delete until it is disposed of. */
export interface HeldFile extends Disposable {
  /** Contents. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Path without symbolic links. */
  readonly path: string;
}

/** Removes the prefix `\\?\`, which long paths need: Windows identifies a loaded DLL by its path without it. */
function plainPath(path: string): string {
  if (path.length > MAX_PATH) return path;
  return path.replace(/^\\\\\?\\UNC\\/, "\\\\").replace(/^\\\\\?\\(?=[a-z]:\\)/i, "");
}

/**
 * Reads a file and keeps it open. Needs no `--allow-read`.
 *
 * @throws {Error} when a call fails: see {@linkcode win32Error}; `Deno.errors.NotFound` when there is no such file.
 */
export function openFile(path: string): HeldFile {
  const { CreateFileW, GetFileSizeEx, GetFinalPathNameByHandleW, ReadFile, CloseHandle, GetLastError } =
    kernel32();
  const fail = (operation: string, code: number) => win32Error(`read "${path}"`, operation, code);
  const opened = CreateFileW(
    wideString(path),
    GENERIC_READ,
    FILE_SHARE_READ,
    null,
    OPEN_EXISTING,
    FILE_ATTRIBUTE_NORMAL,
    0n,
  );
  if (opened === INVALID_HANDLE_VALUE) throw fail("CreateFileW", GetLastError());
  using undo = new DisposableStack();
  const handle = BigInt(opened);
  undo.defer(() => CloseHandle(handle));
  const size = new BigUint64Array(1);
  if (GetFileSizeEx(handle, size) === 0) throw fail("GetFileSizeEx", GetLastError());
  if (size[0]! > MAX_FILE_LENGTH) throw fail("GetFileSizeEx", Win32.ERROR_NOT_SUPPORTED);
  const bytes = new Uint8Array(Number(size[0]));
  const count = new Uint32Array(1);
  for (let done = 0; done < bytes.length; done += count[0]!) {
    const rest = bytes.subarray(done);
    if (ReadFile(handle, rest, rest.length, count, null) === 0) throw fail("ReadFile", GetLastError());
    if (count[0] === 0) throw fail("ReadFile", Win32.ERROR_HANDLE_EOF);
  }
  const units = new Uint16Array(MAX_TEXT_LENGTH);
  const length = GetFinalPathNameByHandleW(handle, units, units.length, 0);
  if (length === 0) throw fail("GetFinalPathNameByHandleW", GetLastError());
  const held = undo.move();
  return {
    bytes,
    path: plainPath(fromWide(units.subarray(0, length))),
    [Symbol.dispose]: () => held.dispose(),
  };
}
