/**
 * wintun.dll: symbol table, and the search for a DLL that may be loaded.
 *
 *     path:    WARREN_WINTUN if it is set, otherwise beside deno.exe, or else in the user's data folder
 *     checks:  DLL for this architecture; SHA-256 of an official build, or equal to WARREN_WINTUN_SHA256
 *
 * When it is loaded, the DLL removes adapters that other products (OpenVPN, OpenConnect) created with Wintun before
 * 0.14. Therefore it is not loaded before the first device is opened. It is never unloaded, because Windows' threads
 * may run its code after its functions have returned. Its licence permits only calls of the functions in wintun.h.
 */

import { buildFor, cacheFolder, WINTUN_BUILDS, WINTUN_VERSION } from "./builds.ts";
import { environment, fromWide, type HeldFile, openFile, pinLibrary, programPath } from "./kernel32.ts";
import { checkMachine, checkNamedHash, loadError, openNamed, sha256Of } from "./library.ts";
import { fromHresult } from "./win32_error.ts";

// Handles are pointers. The address of a packet is a usize, because a pointer would allocate an object per packet.
const SYMBOLS = {
  // WINTUN_ADAPTER_HANDLE WintunCreateAdapter(LPCWSTR Name, LPCWSTR TunnelType, const GUID *RequestedGUID);
  WintunCreateAdapter: { parameters: ["buffer", "buffer", "buffer"], result: "pointer", nonblocking: true },
  // WINTUN_ADAPTER_HANDLE WintunOpenAdapter(LPCWSTR Name);
  WintunOpenAdapter: { parameters: ["buffer"], result: "pointer", nonblocking: true },
  // void WintunCloseAdapter(WINTUN_ADAPTER_HANDLE Adapter);
  WintunCloseAdapter: { parameters: ["pointer"], result: "void", nonblocking: true },
  // void WintunGetAdapterLUID(WINTUN_ADAPTER_HANDLE Adapter, NET_LUID *Luid);
  WintunGetAdapterLUID: { parameters: ["pointer", "buffer"], result: "void" },
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

// Specification: wintun.h
// typedef void (CALLBACK *WINTUN_LOGGER_CALLBACK)(WINTUN_LOGGER_LEVEL Level, DWORD64 Timestamp, LPCWSTR Message);
const LOGGER = { parameters: ["i32", "u64", "pointer"], result: "void" } as const;
/** The highest WINTUN_LOGGER_LEVEL: an error. */
const WINTUN_LOG_ERR = 2;

// Implementation
/** Maximum length of a log message (WCHARs). */
const MAX_MESSAGE_LENGTH = 0x400;
/** Environment variable with the path of the only DLL to use. */
const VARIABLE = "WARREN_WINTUN";
const INSTALL = "run `warren driver install`";

/** Functions of wintun.dll. */
export type Wintun = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

/** A path at which wintun.dll may be. */
interface WintunPlace {
  readonly path: string;
  /** True if the path is from `WARREN_WINTUN`. */
  readonly named: boolean;
  /** Remedy if the file fails the checks. */
  readonly remedy: string;
}

/** A wintun.dll that has passed the checks. */
export interface CheckedWintun extends WintunPlace {
  /** The open file, which the caller disposes of. */
  readonly file: HeldFile;
  /** True for an official build, false for a DLL whose hash is in `WARREN_WINTUN_SHA256`. */
  readonly official: boolean;
}

/** The loaded DLL. */
interface Loaded {
  readonly symbols: Wintun;
  readonly logger: Deno.UnsafeCallback<typeof LOGGER>;
}

let loaded: Loaded | undefined;
/** Lists to which the logger appends error messages: one for each running `collectErrors`. */
const listeners = new Set<string[]>();

/** Returns the places of wintun.dll in search order. */
function wintunPlaces(): WintunPlace[] {
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
 * Finds and checks wintun.dll, but does not load it.
 *
 * @throws {Deno.errors.NotFound} when there is no wintun.dll; the message lists the places.
 * @throws {Deno.errors.NotSupported} when it is built for a different architecture, or is neither an official build of
 * 0.14.1 nor confirmed by `WARREN_WINTUN_SHA256`.
 * @throws {Error} when a file cannot be read: see {@linkcode openFile}.
 */
export function findWintun(): CheckedWintun {
  const places = wintunPlaces();
  for (const place of places) {
    try {
      const file = place.named ? openNamed(VARIABLE, place.path) : openFile(place.path);
      try {
        return { ...place, file, official: checkHash(place, file.bytes) };
      } catch (error) {
        file[Symbol.dispose]();
        throw error;
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound) || place.named) throw error;
    }
  }
  throw new Deno.errors.NotFound(
    `Cannot load wintun.dll: there is no file ${places.map(({ path }) => path).join(" or ")}: ${INSTALL}`,
  );
}

/** Returns true for an official build, and false for a DLL that `WARREN_WINTUN_SHA256` confirms; otherwise throws. */
function checkHash({ path, named, remedy }: WintunPlace, bytes: Uint8Array): boolean {
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
  // The checked file stays open until it is loaded, so that no process can replace it in between.
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
  // Windows' threads call the logger and wait until this thread has run it. It is never closed, because a thread that
  // has read the logger's address may call it after WintunSetLogger(NULL).
  const logger = Deno.UnsafeCallback.threadSafe(LOGGER, (level, _time, message) => {
    if (level !== WINTUN_LOG_ERR || message === null) return;
    const line = readWide(message);
    for (const lines of listeners) lines.push(line);
  });
  logger.unref();
  return { symbols, logger };
}

/** Reads a zero-terminated wide string. */
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
 * @throws {Error} when no DLL passes the checks: see {@linkcode findWintun}.
 * @throws {Deno.errors.NotSupported} when Windows cannot load the DLL, or it lacks a function.
 */
export function wintun(): Wintun {
  return (loaded ??= load()).symbols;
}

/**
 * Calls a function of Wintun and collects the errors that wintun.dll logs during the call: for a nonblocking call, they
 * are the only report of the cause. A call that logs from other threads must be nonblocking, because they wait for the
 * logger, which runs on this thread's event loop.
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

/** Returns the last nonzero error number in logged errors, such as 5 for `(Code 0x00000005)` or `(Code 0x80070005)`. */
export function loggedError(errors: readonly string[]): number | undefined {
  for (const line of errors.toReversed()) {
    const hex = /Code 0x([0-9a-f]{8})\)?\s*$/i.exec(line)?.[1];
    const code = Number.parseInt(hex ?? "0", 16);
    if (code !== 0) return fromHresult(code);
  }
}
