/**
 * wintun.dll: the one symbol table; found, checked and loaded when the first device is opened.
 *
 *     WARREN_WINTUN ─┐
 *     beside deno.exe ├─► first that is there ─► a DLL for this machine? ─► SHA-256 of an official build ─► load
 *     user's cache  ─┘                                                        or WARREN_WINTUN_SHA256
 *
 * Loading it is not without effect: the library then removes adapters of its own generations before 0.14, which
 * other products may have installed (OpenVPN, OpenConnect). It is loaded by absolute path, once, and stays: work
 * that it queues to Windows' threads runs its code after the calls have returned. Only the functions of
 * `wintun.h` are used, as its licence asks.
 */

import { buildFor, cacheFolder, WINTUN_BUILDS, WINTUN_VERSION } from "./builds.ts";
import {
  environment,
  fromWide,
  type HeldFile,
  kernel32,
  openFile,
  pinLibrary,
  programPath,
} from "./kernel32.ts";
import { checkMachine, checkNamedHash, openNamed, refusal, sha256Of } from "./library.ts";

// Adapter and session handles are pointers; a packet is an address, which a usize carries without an object.
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
/** WINTUN_LOGGER_LEVEL: 0 is information, 1 a warning. */
const WINTUN_LOG_ERR = 2;

// Implementation
/** The longest message that is read (WCHARs). */
const MAX_MESSAGE_LENGTH = 0x400;
/** The variable that names another DLL. */
const VARIABLE = "WARREN_WINTUN";
const INSTALL = "run `warren driver install`";

/** The functions of wintun.dll. */
export type Wintun = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

/** A wintun.dll that was found. */
export interface FoundWintun {
  /** Its absolute path. */
  readonly path: string;
  /** Whether `WARREN_WINTUN` named it. */
  readonly named: boolean;
  /** What to do when it is not the right one. */
  readonly remedy: string;
}

/** A wintun.dll that may be loaded. */
export interface CheckedWintun extends FoundWintun {
  /** Its bytes; the file is held until this is disposed of. */
  readonly file: HeldFile;
  /** Whether its maker signed it; otherwise `WARREN_WINTUN_SHA256` says that it is the one that is meant. */
  readonly official: boolean;
}

/** A library that was loaded. */
interface Loaded {
  readonly symbols: Wintun;
  readonly logger: Deno.UnsafeCallback<typeof LOGGER>;
}

let loaded: Loaded | undefined;
/** What the library said, while something listens. */
const listeners = new Set<string[]>();

/** Where a wintun.dll may be, in the order in which it is looked for. */
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
 * @throws {Deno.errors.NotFound} when there is none, saying where it was looked for.
 * @throws {Deno.errors.NotSupported} when it is for another machine, or no official build of 0.14.1.
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
    `Cannot load wintun.dll: it is none of ${places.map(({ path }) => path).join(", ")}: ${INSTALL}`,
  );
}

function isOfficial({ path, named, remedy }: FoundWintun, bytes: Uint8Array): boolean {
  checkMachine(path, bytes, remedy);
  const sha256 = sha256Of(bytes);
  if (WINTUN_BUILDS.some((build) => build.sha256 === sha256)) return true;
  const what = `it is no official build of Wintun ${WINTUN_VERSION} (SHA-256 ${sha256})`;
  const unofficial = refusal(path, what, remedy);
  if (!named) throw unofficial;
  checkNamedHash(path, VARIABLE, sha256, unofficial);
  return false;
}

function load(): Loaded {
  const { path: asked, file, official, remedy } = findWintun();
  // Held until it is loaded, and loaded by where it really is, so that what was hashed is what runs.
  using _ = file;
  const { path } = file;
  if (!official) {
    console.warn(`warren: "${asked}" is no official build of Wintun: WARREN_WINTUN and its SHA-256 name it`);
  }
  let symbols: Wintun;
  try {
    symbols = Deno.dlopen(path, SYMBOLS).symbols;
  } catch (error) {
    const said = (error as Error).message.trim();
    throw new Deno.errors.NotSupported(
      /^Could not open library/.test(said)
        ? `Cannot load "${path}": ${said}`
        : `Cannot load "${path}": it lacks a function of Wintun ${WINTUN_VERSION}, as those before 0.14 do: ${remedy}`,
      { cause: error },
    );
  }
  pinLibrary(path);
  // Called on threads of Windows, too, which wait until this thread runs it. It is never closed: a thread may have
  // read the logger's address just before it was taken away.
  const logger = Deno.UnsafeCallback.threadSafe(LOGGER, (level, _time, message) => {
    if (level !== WINTUN_LOG_ERR || message === null) return;
    const line = readWide(message);
    for (const lines of listeners) lines.push(line);
  });
  logger.unref();
  return { symbols, logger };
}

/** The text at an address, up to its zero. */
function readWide(pointer: Deno.PointerObject): string {
  const view = new Deno.UnsafePointerView(pointer);
  const units: number[] = [];
  for (let unit; units.length < MAX_MESSAGE_LENGTH && (unit = view.getUint16(units.length * 2)) !== 0;) {
    units.push(unit);
  }
  return fromWide(Uint16Array.from(units));
}

/**
 * The functions of wintun.dll, loaded on the first call.
 *
 * @throws as {@linkcode findWintun} does, and {@linkcode Deno.errors.NotSupported} for a DLL of before 0.14.
 */
export function wintun(): Wintun {
  return (loaded ??= load()).symbols;
}

/**
 * Calls something of Wintun's and collects the errors that the library tells of meanwhile; a call that runs
 * elsewhere leaves no other trace. The caller's turns of the event loop go on, which the logger needs.
 */
export async function listening<Result>(call: (errors: string[]) => Promise<Result>): Promise<Result> {
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

/** The version of the driver that runs, such as `0.14`; `undefined` while none does. */
export function runningDriverVersion(): string | undefined {
  const version = wintun().WintunGetRunningDriverVersion();
  return version === 0 ? undefined : `${version >>> 16}.${version & 0xffff}`;
}

/** The last error number that {@linkcode listening} heard, such as 5 of `(Code 0x00000005)`; 0 says nothing. */
export function codeOf(errors: readonly string[]): number | undefined {
  for (const line of errors.toReversed()) {
    const hex = /Code 0x([0-9a-f]{8})\)?\s*$/i.exec(line)?.[1];
    const code = Number.parseInt(hex ?? "0", 16);
    if (code !== 0) return code;
  }
}

/** The error of the last synchronous call; see {@linkcode kernel32}. */
export function lastError(): number {
  return kernel32().GetLastError();
}
