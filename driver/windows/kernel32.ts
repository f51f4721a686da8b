/** kernel32.dll: the one symbol table, opened on first use; text, environment and files through it. */

import { libraryError, requestFfi } from "../ffi.ts";
import { Win32, win32Error } from "./win32_error.ts";

// Sizes: HANDLE, SIZE_T and pointers are 64 bits on the systems that Deno runs on, DWORD and BOOL 32. A HANDLE
// has 32 significant bits, so that a number holds it; parameters that are 64 bits wide are declared so.
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
  waitElsewhere: {
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
/** (HANDLE)-1, of which the lower half is declared. */
const INVALID_HANDLE_VALUE = -1;
/** The longest path that Windows has, and the longest environment variable (WCHARs). */
const MAX_TEXT_LENGTH = 32_768;
/** minwindef.h: the longest path that needs no prefix (WCHARs). */
export const MAX_PATH = 260;

// Implementation
/** More than any library that Warren loads (bytes). */
const MAX_FILE_LENGTH = 64 * 1024 * 1024;

/** The functions of kernel32.dll that Warren calls. */
export type Kernel32 = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

let opened: Kernel32 | undefined;

function load(): Kernel32 {
  // The first one on Windows: the others need it to be found.
  requestFfi("kernel32.dll");
  try {
    return Deno.dlopen("kernel32.dll", SYMBOLS).symbols;
  } catch (error) {
    throw libraryError("kernel32.dll", error);
  }
}

/**
 * The functions of kernel32.dll, opened on the first call. `GetLastError` holds only in the very next
 * expression after a synchronous call; never after one that runs elsewhere.
 *
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`.
 */
export function kernel32(): Kernel32 {
  return opened ??= load();
}

/** Text as Windows takes it: UTF-16, little-endian, with a zero at the end. */
export function wideString(text: string): Uint16Array<ArrayBuffer> {
  return Uint16Array.from({ length: text.length + 1 }, (_, i) => i < text.length ? text.charCodeAt(i) : 0);
}

/** Text from so many units of UTF-16. */
export function fromWide(units: Uint16Array): string {
  const end = units.indexOf(0);
  let text = "";
  for (const unit of end < 0 ? units : units.subarray(0, end)) text += String.fromCharCode(unit);
  return text;
}

/** An environment variable, without `--allow-env`; `undefined` when it is not set or empty. */
export function environment(name: string): string | undefined {
  const units = new Uint16Array(MAX_TEXT_LENGTH);
  const length = kernel32().GetEnvironmentVariableW(wideString(name), units, units.length);
  return length === 0 || length >= units.length ? undefined : fromWide(units.subarray(0, length));
}

/** The path of the running program, without `--allow-read`. */
export function programPath(): string {
  const units = new Uint16Array(MAX_TEXT_LENGTH);
  const length = kernel32().GetModuleFileNameW(0n, units, units.length);
  return fromWide(units.subarray(0, length));
}

/** Keeps a loaded library in memory until the process ends: Deno unloads its libraries a moment before that. */
export function pinLibrary(path: string): void {
  const module = new BigUint64Array(1);
  kernel32().GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN, wideString(path), module);
}

/** Where a function of kernel32.dll is, for Windows to call; 0 when there is none of this name. */
export function functionAddress(name: string): bigint {
  const module = new BigUint64Array(1);
  const { GetModuleHandleExW, GetProcAddress } = kernel32();
  GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT, wideString("kernel32.dll"), module);
  return GetProcAddress(module[0]!, new TextEncoder().encode(`${name}\0`));
}

/** A file's bytes. While it is not disposed of, nobody can write, replace or delete the file. */
export interface HeldFile extends Disposable {
  /** What is in it. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Where it is: no link in this path can be made to lead elsewhere. */
  readonly path: string;
}

/** A path without the `\\?\` in front of it, where it is not needed: libraries are known by the plain one. */
function plainPath(path: string): string {
  if (path.length > MAX_PATH) return path;
  return path.replace(/^\\\\\?\\UNC\\/, "\\\\").replace(/^\\\\\?\\(?=[a-z]:\\)/i, "");
}

/**
 * Reads a file without `--allow-read`, and holds it.
 *
 * @throws {Error} what Windows says; `ERROR_FILE_NOT_FOUND` and `ERROR_PATH_NOT_FOUND` are `Deno.errors.NotFound`.
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
