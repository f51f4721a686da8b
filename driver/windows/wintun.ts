/**
 * wintun.dll: its symbol table; found, checked and loaded when the first device is opened.
 *
 *     WARREN_WINTUN ─┐
 *     beside deno.exe ├─► first that exists ─► a DLL for this machine? ─► SHA-256 of an official build ─► load
 *     user's cache  ─┘                                                        or WARREN_WINTUN_SHA256
 *
 * Loading has a side effect: the library removes adapters of Wintun before 0.14, which other products (OpenVPN,
 * OpenConnect) may have installed. It is loaded once, by absolute path, and never unloaded: work that it queues to
 * threads of Windows runs its code after the calls have returned. Only functions of `wintun.h` are used, as the licence
 * requires.
 */

import { buildFor, cacheFolder, WINTUN_BUILDS, WINTUN_VERSION } from "./builds.ts";
import { environment, fromWide, type HeldFile, openFile, pinLibrary, programPath } from "./kernel32.ts";
import { checkMachine, checkNamedHash, loadError, openNamed, sha256Of } from "./library.ts";

// Adapter and session handles are pointers; a packet's address is a usize, which needs no object.
const SYMBOLS = {
  // WINTUN_ADAPTER_HANDLE WintunCreateAdapter(LPCWSTR Name, LPCWSTR TunnelType, const GUID *RequestedGUID);
  WintunCreateAdapter: { parameters: ["buffer", "buffer", "buffer"], result: "pointer", nonblocking: true },
  // WINTUN_ADAPTER_HANDLE WintunOpenAdapter(LPCWSTR Name);
  WintunOpenAdapter: { parameters: ["buffer"], result: "pointer", nonblocking: true },
  // void WintunCloseAdapter(WINTUN_ADAPTER_HANDLE Adapter);
  WintunCloseAdapter: { parameters: ["pointer"], result: "void", nonblocking: true },
  // BOOL WintunDeleteDriver(void);
  WintunDeleteDriver: { parameters: [], result: "i32", nonblocking: true },
  // void WintunGetAdapterLUID(WINTUN_ADAPTER_HANDLE Adapter, NET_LUID *Luid);
  WintunGetAdapterLUID: { parameters: ["pointer", "buffer"], result: "void" },
  // DWORD WintunGetRunningDriverVersion(void);
  WintunGetRunningDriverVersion: { parameters: [], result: "u32" },
  // void WintunSetLogger(WINTUN_LOGGER_CALLBACK NewLogger);
  WintunSetLogger: { parameters: ["function"], result: "void" },
  // WINTUN_SESSION_HANDLE WintunStartSession(WINTUN_ADAPTER_HANDLE Adapter, DWORD Capacity);
  WintunStartSession: { parameters: ["pointer", "u32"], result: "pointer" },
  // void WintunEndSession(WINTUN_SESSION_HANDLE Session);
  WintunEndSession: { parameters: ["pointer"], result: "void" },
  // HANDLE WintunGetReadWaitEvent(WINTUN_SESSION_HANDLE Session);
  WintunGetReadWaitEvent: { parameters: ["pointer"], result: "u32" },
  // BYTE *WintunReceivePacket(WINTUN_SESSION_HANDLE Session, DWORD *PacketSize);
  WintunReceivePacket: { parameters: ["pointer", "buffer"], result: "usize" },
  // void WintunReleaseReceivePacket(WINTUN_SESSION_HANDLE Session, const BYTE *Packet);
  WintunReleaseReceivePacket: { parameters: ["pointer", "usize"], result: "void" },
  // BYTE *WintunAllocateSendPacket(WINTUN_SESSION_HANDLE Session, DWORD PacketSize);
  WintunAllocateSendPacket: { parameters: ["pointer", "u32"], result: "usize" },
  // void WintunSendPacket(WINTUN_SESSION_HANDLE Session, const BYTE *Packet);
  WintunSendPacket: { parameters: ["pointer", "usize"], result: "void" },
} as const satisfies Deno.ForeignLibraryInterface;

// Specification
// void CALLBACK (WINTUN_LOGGER_LEVEL Level, DWORD64 Timestamp, LPCWSTR Message);
const LOGGER = { parameters: ["i32", "u64", "pointer"], result: "void" } as const;
/** WINTUN_LOGGER_LEVEL; 0 is information, 1 a warning. */
const WINTUN_LOG_ERR = 2;

// Implementation
/** Maximum length of a log message (WCHARs). */
const MAX_MESSAGE_LENGTH = 0x400;
/** Environment variable with the path of another DLL. */
const VARIABLE = "WARREN_WINTUN";
const INSTALL = "run `warren driver install`";

/** Functions of wintun.dll. */
export type Wintun = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

/** A place of wintun.dll. */
export interface FoundWintun {
  /** Absolute path. */
  readonly path: string;
  /** True if `WARREN_WINTUN` names it. */
  readonly named: boolean;
  /** Remedy if it is the wrong file. */
  readonly remedy: string;
}

/** A wintun.dll that passed the checks. */
export interface CheckedWintun extends FoundWintun {
  /** Its contents; disposing of it closes the file. */
  readonly file: HeldFile;
  /** True for an official build; otherwise `WARREN_WINTUN_SHA256` confirms it. */
  readonly official: boolean;
}

/** The loaded library. */
interface Loaded {
  readonly symbols: Wintun;
  readonly logger: Deno.UnsafeCallback<typeof LOGGER>;
}

let loaded: Loaded | undefined;
/** Lists that collect the library's error messages. */
const listeners = new Set<string[]>();

/** Returns the places of wintun.dll in search order. */
export function wintunPlaces(): FoundWintun[] {
  const named = environment(VARIABLE);
  if (named !== undefined) return [{ path: named, named: true, remedy: `unset ${VARIABLE}` }];
  const beside = programPath().replace(/[^\\]*$/, "wintun.dll");
  const places = [{ path: beside, named: false, remedy: `remove that file, then ${INSTALL}` }];
  const local = environment("LOCALAPPDATA");
  if (local !== undefined) {
    places.push({ path: `${cacheFolder(local, buildFor())}\\wintun.dll`, named: false, remedy: INSTALL });
  }
  return places;
}

/**
 * Reads and checks the wintun.dll that a device would load, without loading it.
 *
 * @throws {Deno.errors.NotFound} when there is none; the message lists the places.
 * @throws {Deno.errors.NotSupported} when it is built for another machine, or not an official build of 0.14.1.
 */
export function findWintun(): CheckedWintun {
  const places = wintunPlaces();
  for (const found of places) {
    try {
      const file = found.named ? openNamed(VARIABLE, found.path) : openFile(found.path);
      try {
        return { ...found, file, official: isOfficial(found, file.bytes) };
      } catch (error) {
        file[Symbol.dispose]();
        throw error;
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound) || found.named) throw error;
    }
  }
  throw new Deno.errors.NotFound(
    `Cannot load wintun.dll: there is no file ${places.map(({ path }) => path).join(" or ")}: ${INSTALL}`,
  );
}

function isOfficial({ path, named, remedy }: FoundWintun, bytes: Uint8Array): boolean {
  checkMachine(path, bytes, remedy);
  const sha256 = sha256Of(bytes);
  if (WINTUN_BUILDS.some((build) => build.sha256 === sha256)) return true;
  const reason = `it is not an official build of Wintun ${WINTUN_VERSION} (SHA-256 ${sha256})`;
  const unofficial = loadError(path, reason, remedy);
  if (!named) throw unofficial;
  checkNamedHash(path, VARIABLE, sha256, unofficial);
  return false;
}

function load(): Loaded {
  const { path: requested, file, official, remedy } = findWintun();
  // Kept open, and loaded by its final path, so that the file that was hashed is the one that runs.
  using _ = file;
  const { path } = file;
  if (!official) {
    console.warn(
      `warren: "${requested}" is not an official build of Wintun: ${VARIABLE} and its SHA-256 allow it`,
    );
  }
  let symbols: Wintun;
  try {
    symbols = Deno.dlopen(path, SYMBOLS).symbols;
  } catch (error) {
    const reason = (error as Error).message.trim();
    throw new Deno.errors.NotSupported(
      /^Could not open library/.test(reason)
        ? `Cannot load "${path}": ${reason}`
        : `Cannot load "${path}": it lacks a function of Wintun ${WINTUN_VERSION} and may be older than 0.14: ${remedy}`,
      { cause: error },
    );
  }
  pinLibrary(path);
  // Threads of Windows call it as well, and wait until this thread has run it. It is never closed: a thread may have read
  // the logger's address just before its removal.
  const logger = Deno.UnsafeCallback.threadSafe(LOGGER, (level, _time, message) => {
    if (level !== WINTUN_LOG_ERR || message === null) return;
    const line = readWide(message);
    for (const lines of listeners) lines.push(line);
  });
  logger.unref();
  return { symbols, logger };
}

/** Reads the zero-terminated string at an address. */
function readWide(pointer: Deno.PointerObject): string {
  const view = new Deno.UnsafePointerView(pointer);
  const units: number[] = [];
  for (let unit; units.length < MAX_MESSAGE_LENGTH && (unit = view.getUint16(units.length * 2)) !== 0;) {
    units.push(unit);
  }
  return fromWide(Uint16Array.from(units));
}

/**
 * Returns the functions of wintun.dll, loaded on the first call.
 *
 * @throws like {@linkcode findWintun}, and {@linkcode Deno.errors.NotSupported} for a DLL older than 0.14.
 */
export function wintun(): Wintun {
  return (loaded ??= load()).symbols;
}

/**
 * Makes a call of Wintun and collects the errors that the library logs meanwhile. A nonblocking call leaves no other
 * trace of its failure. The event loop keeps running, as the logger requires.
 */
export async function collectErrors<Result>(call: (errors: string[]) => Promise<Result>): Promise<Result> {
  const symbols = wintun();
  const errors: string[] = [];
  if (listeners.size === 0) {
    symbols.WintunSetLogger(loaded!.logger.pointer);
    loaded!.logger.ref();
  }
  listeners.add(errors);
  try {
    return await call(errors);
  } finally {
    listeners.delete(errors);
    if (listeners.size === 0) {
      symbols.WintunSetLogger(null);
      loaded!.logger.unref();
    }
  }
}

/** Returns the version of the running driver, such as `0.14`; `undefined` when none runs. */
export function runningDriverVersion(): string | undefined {
  const version = wintun().WintunGetRunningDriverVersion();
  return version === 0 ? undefined : `${version >>> 16}.${version & 0xffff}`;
}

/** Returns the last nonzero error number in logged errors, such as 5 of `(Code 0x00000005)`. */
export function codeOf(errors: readonly string[]): number | undefined {
  for (const line of errors.toReversed()) {
    const hex = /Code 0x([0-9a-f]{8})\)?\s*$/i.exec(line)?.[1];
    const code = Number.parseInt(hex ?? "0", 16);
    if (code !== 0) return code;
  }
}
