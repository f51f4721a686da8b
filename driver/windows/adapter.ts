/** Creates, opens and removes Wintun adapters, on another thread because these calls take seconds. */

import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { iphlpapi } from "./iphlpapi.ts";
import { wideString } from "./kernel32.ts";
import { ADMINISTRATOR_REMEDY, isAdministrator } from "./shell32.ts";
import { Win32, win32Error } from "./win32_error.ts";
import { collectErrors, loggedError, type Wintun, wintun } from "./wintun.ts";
import { wintunError } from "./wintun_error.ts";

// Specification
const GUID_SIZE = 16;
/** MAX_ADAPTER_NAME (ipexport.h) without the terminating zero (WCHARs). */
const MAX_NAME_LENGTH = 127;
/** Version 8 and variant of a UUID (RFC 9562 sections 4.1 and 5.8); a GUID's first three fields are little-endian. */
const GuidBits = { VersionByte: 7, Version: 0x80, VariantByte: 8, Variant: 0x80 } as const;

// Implementation
/** Tunnel type: Windows displays the adapter as "Warren Tunnel". */
const TUNNEL_TYPE = "Warren";
/** Hashed before the name. Changing it would give every adapter a new network profile. */
const GUID_LABEL = "warren adapter v1\0";
/** Delay before the second attempt (milliseconds): the first may fail shortly after another process has crashed. */
const RETRY_AFTER = 1000;
/** Time after which a warning is printed (milliseconds): installing the driver can take more than a minute. */
const SLOW_NOTICE_AFTER = 20_000;
/** Numbers that `%d` may stand for. */
const MAX_NUMBERS = 256;

/** An open adapter. */
export interface Adapter {
  /** WINTUN_ADAPTER_HANDLE. */
  readonly handle: Deno.PointerObject;
  readonly name: string;
  /** NET_LUID, the interface's number in calls of IP Helper. */
  readonly luid: bigint;
  /** GUID in its memory layout (16 bytes). */
  readonly guid: Uint8Array<ArrayBuffer>;
  /** True if this process created the adapter, so that closing removes it. */
  readonly created: boolean;
}

/**
 * Derives an adapter's GUID from its name. Windows stores a network profile (private or public) for each GUID, so
 * random GUIDs would leave one more profile behind on every start.
 */
export function adapterGuid(name: string): Uint8Array<ArrayBuffer> {
  const guid = new Uint8Array(GUID_SIZE);
  guid.set(createHash("sha256").update(GUID_LABEL + name.toLowerCase()).digest().subarray(0, GUID_SIZE));
  guid[GuidBits.VersionByte] = guid[GuidBits.VersionByte]! & 0x0f | GuidBits.Version;
  guid[GuidBits.VariantByte] = guid[GuidBits.VariantByte]! & 0x3f | GuidBits.Variant;
  return guid;
}

/**
 * Opens the Wintun adapter of this name, or creates it if no interface has the name. `%d` stands for the first free
 * number. When the process that created an adapter ends, even in a crash, Windows removes the adapter.
 *
 * @throws {RangeError} when the name has more than 127 UTF-16 code units.
 * @throws {Deno.errors.PermissionDenied} without administrator rights.
 * @throws {DriverError} `ERROR_DUP_NAME` when the interface of this name is not a Wintun adapter: WintunCreateAdapter
 * would rename it.
 * @throws {Error} when a call of Wintun fails: see {@linkcode wintunError}.
 */
export async function openAdapter(name: string): Promise<Adapter> {
  const plain = name.includes("%d") ? freeName(name) : name;
  // Checked after `%d` is replaced: the number can be longer.
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
 * Closes an adapter whose session has ended, and removes it if this process created it. Resolves when Windows has
 * removed the adapter or failed to: Wintun does not report which.
 */
export function closeAdapter(adapter: Adapter): Promise<void> {
  return collectErrors(() => wintun().WintunCloseAdapter(adapter.handle));
}

/** Reports whether an interface of any kind has this name. */
function isTaken(name: string): boolean {
  return iphlpapi().ConvertInterfaceAliasToLuid(wideString(name), new BigUint64Array(1)) === Win32.NO_ERROR;
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
  const failed = loggedError(errors) ?? Win32.ERROR_NOT_FOUND;
  const code = failed === Win32.ERROR_NOT_FOUND ? Win32.ERROR_DUP_NAME : failed;
  throw wintunError(`open device "${name}"`, "WintunOpenAdapter", code, errors);
}

async function create(symbols: Wintun, name: string, errors: string[]): Promise<Adapter> {
  const [wideName, wideType, guid] = [wideString(name), wideString(TUNNEL_TYPE), adapterGuid(name)];
  for (let attempt = 0;; attempt++) {
    const handle = await symbols.WintunCreateAdapter(wideName, wideType, guid);
    if (handle !== null) return describe(handle, name, true);
    const failed = loggedError(errors) ?? Win32.ERROR_GEN_FAILURE;
    if (attempt > 0 || failed === Win32.ERROR_ACCESS_DENIED) {
      throw wintunError(`open device "${name}"`, "WintunCreateAdapter", failed, errors);
    }
    await delay(RETRY_AFTER);
    errors.length = 0;
  }
}

function describe(handle: Deno.PointerObject, name: string, created: boolean): Adapter {
  const luid = new BigUint64Array(1);
  wintun().WintunGetAdapterLUID(handle, luid);
  return { handle, name, luid: luid[0]!, guid: guidOf(luid) ?? adapterGuid(name), created };
}

/** Returns the interface's actual GUID, which may differ from the requested one. */
function guidOf(luid: BigUint64Array<ArrayBuffer>): Uint8Array<ArrayBuffer> | undefined {
  const guid = new Uint8Array(GUID_SIZE);
  const { ConvertInterfaceLuidToGuid } = iphlpapi();
  if (ConvertInterfaceLuidToGuid === null) return undefined;
  return ConvertInterfaceLuidToGuid(luid, guid) === Win32.NO_ERROR ? guid : undefined;
}
