/**
 * Wintun's adapters: made and removed. Calls take seconds, so they run beside this thread; what went wrong in one
 * is known from the library's log alone.
 */

import { createHash } from "node:crypto";
import { iphlpapi } from "./iphlpapi.ts";
import { wideString } from "./kernel32.ts";
import { ADMINISTRATOR_REMEDY, isAdministrator } from "./shell32.ts";
import { fromHresult, Win32, win32Error } from "./win32_error.ts";
import { codeOf, listening, runningDriverVersion, type Wintun, wintun } from "./wintun.ts";

// Specification
const GUID_SIZE = 16;
/** MAX_ADAPTER_NAME (ipexport.h), without its zero (WCHARs). */
const MAX_NAME_LENGTH = 127;
/** RFC 9562 sections 4.1 and 5.8, for a GUID whose first three fields are little-endian. */
const GuidBits = { VersionByte: 7, Version: 0x80, VariantByte: 8, Variant: 0x80 } as const;

// Implementation
/** Windows shows the adapter as a "Warren Tunnel". */
const TUNNEL_TYPE = "Warren";
/** What makes the identifiers Warren's own; another text is another set of network profiles. */
const GUID_LABEL = "warren adapter v1\0";
/** A first attempt after a process that died can fail where the next one succeeds (milliseconds). */
const RETRY_AFTER = 1000;
/** When someone who waits is told so (milliseconds); a first installation of the driver may take more than a minute. */
const SLOW = 20_000;
/** Names tried for `%d`. */
const MAX_NUMBERS = 256;

/** An adapter that this process has open. */
export interface Adapter {
  /** What Wintun knows it by. */
  readonly handle: Deno.PointerObject;
  /** Its name. */
  readonly name: string;
  /** NET_LUID: what Windows knows it by. */
  readonly luid: bigint;
  /** Its GUID's 16 bytes, as they are in memory. */
  readonly guid: Uint8Array<ArrayBuffer>;
  /** Whether this process made it, and closing removes it. */
  readonly created: boolean;
  /** The running driver's version, such as `0.14`. */
  readonly driverVersion: string | undefined;
}

/**
 * The GUID of an adapter of this name, always the same: Windows keeps a network's settings, such as whether it is
 * private, by it, and another one for each start would leave a profile behind each time.
 */
export function adapterGuid(name: string): Uint8Array<ArrayBuffer> {
  const guid = new Uint8Array(GUID_SIZE);
  guid.set(createHash("sha256").update(GUID_LABEL + name.toLowerCase()).digest().subarray(0, GUID_SIZE));
  guid[GuidBits.VersionByte] = guid[GuidBits.VersionByte]! & 0x0f | GuidBits.Version;
  guid[GuidBits.VariantByte] = guid[GuidBits.VariantByte]! & 0x3f | GuidBits.Variant;
  return guid;
}

/**
 * Makes an adapter, or opens the one of this name that Wintun has. A `%d` is replaced by the first number that is
 * free. Windows removes an adapter with the process that made it, after a crash, too.
 *
 * @throws {Deno.errors.PermissionDenied} without an administrator's rights, saying what to do.
 * @throws {DriverError} `ERROR_DUP_NAME` when an interface that is not Wintun's has this name: Wintun would
 * rename that one.
 * @throws {Error} what Windows says, with the library's own lines as the cause.
 */
export async function openAdapter(name: string): Promise<Adapter> {
  const plain = name.includes("%d") ? freeName(name) : name;
  // A number may have made it longer.
  if (plain.length > MAX_NAME_LENGTH) {
    throw new RangeError(
      `Cannot open device "${plain}": its name has ${plain.length} units: at most ${MAX_NAME_LENGTH}`,
    );
  }
  if (!isAdministrator()) {
    throw win32Error(
      `open device "${plain}"`,
      "IsUserAnAdmin",
      Win32.ERROR_ACCESS_DENIED,
      ADMINISTRATOR_REMEDY,
    );
  }
  const symbols = wintun();
  return await listening(async (errors) => {
    const slow = setTimeout(
      () => console.warn(`warren: still waiting for Windows to make "${plain}"`),
      SLOW,
    );
    try {
      return isTaken(plain) ? await open(symbols, plain, errors) : await create(symbols, plain, errors);
    } finally {
      clearTimeout(slow);
    }
  });
}

/**
 * Closes an adapter, and removes it if this process made it. Its session has to be over.
 *
 * @returns when Windows has it removed, or has given up; there is no telling.
 */
export function closeAdapter(adapter: Adapter): Promise<void> {
  return listening(() => wintun().WintunCloseAdapter(adapter.handle));
}

/** Whether an interface has this name, of whatever kind. */
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
  if (failed === Win32.ERROR_NOT_FOUND) {
    throw wintunError(`open device "${name}"`, "WintunOpenAdapter", Win32.ERROR_DUP_NAME, errors);
  }
  throw wintunError(`open device "${name}"`, "WintunOpenAdapter", failed, errors);
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

/** The GUID that Windows gave it: it may differ from the one that was asked for. */
function guidOf(luid: BigUint64Array<ArrayBuffer>): Uint8Array<ArrayBuffer> | undefined {
  const guid = new Uint8Array(GUID_SIZE);
  const { ConvertInterfaceLuidToGuid } = iphlpapi();
  if (ConvertInterfaceLuidToGuid === null) return undefined;
  return ConvertInterfaceLuidToGuid(luid, guid) === Win32.NO_ERROR ? guid : undefined;
}

/**
 * The error for a call of Wintun's that failed, with what the library said of it as the cause.
 *
 * @param attempt What could not be done, as {@linkcode win32Error} takes it.
 */
export function wintunError(
  attempt: string,
  operation: string,
  code: number,
  errors: readonly string[],
): Error {
  const remedies: Record<number, string> = {
    [Win32.ERROR_ACCESS_DENIED]: ADMINISTRATOR_REMEDY,
    [Win32.ERROR_DUP_NAME]: "an interface that is not Wintun's has this name: choose another",
    [Win32.ERROR_ALREADY_INITIALIZED]: "another program uses this adapter",
    [Win32.ERROR_GEN_FAILURE]: "look at the last lines of C:\\Windows\\INF\\setupapi.dev.log",
  };
  const lines = [...new Set(errors)];
  const said = lines.length === 0 ? undefined : `Wintun says: ${lines.join("; ")}`;
  return win32Error(
    attempt,
    operation,
    code,
    [said, remedies[code]].filter((part) => part !== undefined).join(": ") || undefined,
    lines.length === 0 ? undefined : { cause: new Error(lines.join("\n")) },
  );
}
