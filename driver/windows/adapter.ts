/**
 * Creation and removal of Wintun adapters. The calls take seconds, so they run on another thread; the cause of a
 * failure is known only from the library's log.
 */

import { createHash } from "node:crypto";
import { iphlpapi } from "./iphlpapi.ts";
import { wideString } from "./kernel32.ts";
import { ADMINISTRATOR_REMEDY, isAdministrator } from "./shell32.ts";
import { fromHresult, Win32, win32Error } from "./win32_error.ts";
import { codeOf, collectErrors, runningDriverVersion, type Wintun, wintun } from "./wintun.ts";

// Specification
const GUID_SIZE = 16;
/** MAX_ADAPTER_NAME (ipexport.h) without its zero (WCHARs). */
const MAX_NAME_LENGTH = 127;
/** RFC 9562 sections 4.1 and 5.8; the first three fields of a GUID are little-endian. */
const GuidBits = { VersionByte: 7, Version: 0x80, VariantByte: 8, Variant: 0x80 } as const;

// Implementation
/** Tunnel type; Windows displays the adapter as "Warren Tunnel". */
const TUNNEL_TYPE = "Warren";
/** Prefix of the hashed names; another label would give every adapter a new network profile. */
const GUID_LABEL = "warren adapter v1\0";
/** Delay before the second attempt (milliseconds): after a crashed process the first one may fail. */
const RETRY_AFTER = 1000;
/** Time after which a message is printed (milliseconds): the first installation of the driver can take over a minute. */
const SLOW_NOTICE_AFTER = 20_000;
/** Numbers tried for `%d`. */
const MAX_NUMBERS = 256;

/** An open adapter. */
export interface Adapter {
  /** Handle of Wintun. */
  readonly handle: Deno.PointerObject;
  /** Name. */
  readonly name: string;
  /** NET_LUID, by which Windows identifies it. */
  readonly luid: bigint;
  /** GUID: 16 bytes as in memory. */
  readonly guid: Uint8Array<ArrayBuffer>;
  /** True if this process created it; closing then removes it. */
  readonly created: boolean;
  /** Version of the running driver, such as `0.14`. */
  readonly driverVersion: string | undefined;
}

/**
 * Derives the GUID of an adapter from its name. Windows keeps network settings, such as private or public, by GUID; a
 * random one would leave a new profile behind on every start.
 */
export function adapterGuid(name: string): Uint8Array<ArrayBuffer> {
  const guid = new Uint8Array(GUID_SIZE);
  guid.set(createHash("sha256").update(GUID_LABEL + name.toLowerCase()).digest().subarray(0, GUID_SIZE));
  guid[GuidBits.VersionByte] = guid[GuidBits.VersionByte]! & 0x0f | GuidBits.Version;
  guid[GuidBits.VariantByte] = guid[GuidBits.VariantByte]! & 0x3f | GuidBits.Variant;
  return guid;
}

/**
 * Creates an adapter, or opens the Wintun adapter of this name. `%d` stands for the first free number. Windows removes
 * an adapter with the process that created it, even after a crash.
 *
 * @throws {Deno.errors.PermissionDenied} without administrator rights.
 * @throws {DriverError} `ERROR_DUP_NAME` when an interface that does not belong to Wintun has this name: Wintun would
 * rename that interface.
 * @throws {Error} for other failures, as {@linkcode win32Error}, with the library's log lines as the cause.
 */
export async function openAdapter(name: string): Promise<Adapter> {
  const plain = name.includes("%d") ? freeName(name) : name;
  // The number may have made it longer.
  if (plain.length > MAX_NAME_LENGTH) {
    throw new RangeError(
      `Cannot open device "${plain}": name must have at most ${MAX_NAME_LENGTH} UTF-16 code units, got ${plain.length}`,
    );
  }
  if (!isAdministrator()) {
    const attempt = `open device "${plain}"`;
    throw win32Error(attempt, "IsUserAnAdmin", Win32.ERROR_ACCESS_DENIED, ADMINISTRATOR_REMEDY);
  }
  const symbols = wintun();
  return await collectErrors(async (errors) => {
    const slow = setTimeout(
      () => console.warn(`warren: still waiting for Windows to create "${plain}"`),
      SLOW_NOTICE_AFTER,
    );
    try {
      return isTaken(plain) ? await open(symbols, plain, errors) : await create(symbols, plain, errors);
    } finally {
      clearTimeout(slow);
    }
  });
}

/**
 * Closes an adapter, and removes it if this process created it. Its session must have ended.
 *
 * @returns when Windows has removed it or given up; Wintun does not report which.
 */
export function closeAdapter(adapter: Adapter): Promise<void> {
  return collectErrors(() => wintun().WintunCloseAdapter(adapter.handle));
}

/** Returns true if an interface of any kind has this name. */
function isTaken(name: string): boolean {
  const { ConvertInterfaceAliasToLuid } = iphlpapi();
  return ConvertInterfaceAliasToLuid !== null &&
    ConvertInterfaceAliasToLuid(wideString(name), new BigUint64Array(1)) === Win32.NO_ERROR;
}

function freeName(pattern: string): string {
  for (let number = 0; number < MAX_NUMBERS; number++) {
    const name = pattern.replace("%d", String(number));
    if (!isTaken(name)) return name;
  }
  throw win32Error(`open device "${pattern}"`, "ConvertInterfaceAliasToLuid", Win32.ERROR_DUP_NAME);
}

async function open(symbols: Wintun, name: string, errors: string[]): Promise<Adapter> {
  const handle = await symbols.WintunOpenAdapter(wideString(name));
  if (handle !== null) return describe(handle, name, false);
  const failed = fromHresult(codeOf(errors) ?? Win32.ERROR_NOT_FOUND);
  const code = failed === Win32.ERROR_NOT_FOUND ? Win32.ERROR_DUP_NAME : failed;
  throw wintunError(`open device "${name}"`, "WintunOpenAdapter", code, errors);
}

async function create(symbols: Wintun, name: string, errors: string[]): Promise<Adapter> {
  const [wideName, wideType, guid] = [wideString(name), wideString(TUNNEL_TYPE), adapterGuid(name)];
  for (let attempt = 0;; attempt++) {
    const handle = await symbols.WintunCreateAdapter(wideName, wideType, guid);
    if (handle !== null) return describe(handle, name, true);
    const failed = fromHresult(codeOf(errors) ?? Win32.ERROR_GEN_FAILURE);
    if (attempt > 0 || failed === Win32.ERROR_ACCESS_DENIED) {
      throw wintunError(`open device "${name}"`, "WintunCreateAdapter", failed, errors);
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_AFTER));
    errors.length = 0;
  }
}

function describe(handle: Deno.PointerObject, name: string, created: boolean): Adapter {
  const luid = new BigUint64Array(1);
  wintun().WintunGetAdapterLUID(handle, luid);
  return {
    handle,
    name,
    luid: luid[0]!,
    guid: guidOf(luid) ?? adapterGuid(name),
    created,
    driverVersion: runningDriverVersion(),
  };
}

/** Returns the GUID assigned by Windows, which may differ from the requested one. */
function guidOf(luid: BigUint64Array<ArrayBuffer>): Uint8Array<ArrayBuffer> | undefined {
  const guid = new Uint8Array(GUID_SIZE);
  const { ConvertInterfaceLuidToGuid } = iphlpapi();
  if (ConvertInterfaceLuidToGuid === null) return undefined;
  return ConvertInterfaceLuidToGuid(luid, guid) === Win32.NO_ERROR ? guid : undefined;
}

/**
 * Creates the error of a failed call of Wintun, with the library's log lines as the cause.
 *
 * @param attempt Failed action, as for {@linkcode win32Error}.
 */
export function wintunError(
  attempt: string,
  operation: string,
  code: number,
  errors: readonly string[],
): Error {
  const remedies: Record<number, string> = {
    [Win32.ERROR_ACCESS_DENIED]: ADMINISTRATOR_REMEDY,
    [Win32.ERROR_DUP_NAME]: "an interface that does not belong to Wintun has this name: choose another name",
    [Win32.ERROR_ALREADY_INITIALIZED]: "another program uses this adapter",
    [Win32.ERROR_GEN_FAILURE]: "look at the last lines of C:\\Windows\\INF\\setupapi.dev.log",
  };
  const lines = [...new Set(errors)];
  const report = lines.length === 0 ? undefined : `Wintun reports: ${lines.join("; ")}`;
  return win32Error(
    attempt,
    operation,
    code,
    [report, remedies[code]].filter((part) => part !== undefined).join(": ") || undefined,
    lines.length === 0 ? undefined : { cause: new Error(lines.join("\n")) },
  );
}
