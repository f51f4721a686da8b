/**
 * Makes an adapter what its options say, and back.
 *
 * What is made here dies with the adapter, and Windows removes the adapter with the process: a crash leaves nothing,
 * but for the name servers that Windows remembers by the adapter's GUID, and these are set anew by each start. Still
 * everything is taken back before the adapter is closed, newest first: Windows does badly when an interface goes
 * that has routes. On an adapter that was there before, what it had is put back; its name servers alone are cleared.
 */

import { type Address, formatAddress, formatCidr, type Prefix } from "../../lib/wire/address.ts";
import { IPV6_MIN_MTU } from "../../lib/wire/header_fields.ts";
import type { DeviceStatistics } from "../../lib/core/mod.ts";
import { addressOf } from "../native_memory.ts";
import type { CheckedDeviceOptions, CheckedRoute } from "../options.ts";
import type { Adapter } from "./adapter.ts";
import { Family, IfRow, InterfaceRow, iphlpapi, ROUTER_DISCOVERY_DISABLED } from "./iphlpapi.ts";
import { wideString } from "./kernel32.ts";
import {
  dnsSettings,
  familyOf,
  forwardRow,
  ifRow,
  interfaceRow,
  type Row,
  unicastRow,
  viewOf,
} from "./rows.ts";
import { ADMINISTRATOR_REMEDY } from "./shell32.ts";
import { Win32, win32Error } from "./win32_error.ts";

// Specification
/** RFC 791 section 3.2: what every host accepts, and Windows' least. */
const MIN_MTU_IPV4 = 576;

// Implementation
const MTU = 1500;
/** Windows shows a new interface's row to each protocol some time after the adapter is there (milliseconds). */
const ROW_LIMIT = 15_000;
const ROW_AGAIN = 50;
/** The longest wait for IPv6's row, where nothing but `default` asks for it (milliseconds). */
const DEFAULT_ROW_LIMIT = 2000;

/**
 * Refuses what Windows has no counterpart for, before anything is touched.
 *
 * @throws {Deno.errors.NotSupported} for policy rules, routing tables, and a device that is not up.
 * @throws {RangeError} for an MTU below 576.
 */
export function checkSupported({ name, rules, routes, up, mtu = MTU }: CheckedDeviceOptions): void {
  const refuse = (what: string) =>
    new Deno.errors.NotSupported(`Cannot open device "${name}": Windows has no ${what}`);
  if (rules.length > 0) throw refuse("policy rules");
  if (routes.some(({ table }) => table !== undefined)) throw refuse("routing tables");
  if (!up) throw refuse("Wintun device that is open and down");
  if (mtu < MIN_MTU_IPV4) {
    throw new RangeError(`Cannot open device "${name}": MTU ${mtu} is less than Windows' ${MIN_MTU_IPV4}`);
  }
}

/** What was changed on an adapter, and how it is put back. */
export class Setup {
  /** The longest packet that Windows sends through it (bytes). */
  mtu = MTU;
  readonly #iphlpapi = iphlpapi();
  readonly #name: string;
  readonly #luid: bigint;
  readonly #guid: Row;
  readonly #stays: boolean;
  readonly #undos: { what: string; undo: () => number }[] = [];
  readonly #ifRow: Row;
  /** The settings point at it. */
  #dnsText: Uint16Array<ArrayBuffer> | undefined;

  /** For this adapter. */
  constructor(adapter: Adapter) {
    this.#name = adapter.name;
    this.#luid = adapter.luid;
    this.#guid = adapter.guid;
    this.#stays = !adapter.created;
    this.#ifRow = ifRow(adapter.luid);
  }

  /**
   * Makes the adapter what the options say.
   *
   * @throws {Error} Windows', with its own words; the caller undoes what was made.
   */
  async apply(options: CheckedDeviceOptions): Promise<void> {
    const { addresses, routes, dns } = options;
    this.mtu = options.mtu ?? MTU;
    // `default` covers IPv6 as far as the system has it.
    const isOptional = ({ isDefault = false, to }: CheckedRoute) => isDefault && to.address.family === 6;
    const needed = [...addresses, ...routes.filter((route) => !isOptional(route)).map(({ to }) => to)];
    const needs = new Set<Family>(needed.map(({ address }) => familyOf(address)));
    const wants = routes.some(isOptional) ? DEFAULT_ROW_LIMIT : 0;
    const has = new Set<Family>();
    // Where a system does without one protocol, its row never comes: it is waited for only when it is needed.
    const first = needs.has(Family.Ipv4) || needs.size === 0 ? Family.Ipv4 : Family.Ipv6;
    const second = first === Family.Ipv4 ? Family.Ipv6 : Family.Ipv4;
    for (const family of [first, second]) {
      const isNeeded = needs.has(family) || family === first;
      const row = await this.#awaitRow(family, isNeeded, family === Family.Ipv6 ? wants : 0);
      if (row === undefined) continue;
      has.add(family);
      if (family === first && this.#keepsMtu(options)) {
        this.mtu = viewOf(row).getUint32(InterfaceRow.NlMtu, true);
      }
      this.#setInterface(family, row, options);
    }
    for (const prefix of addresses) this.#addAddress(prefix);
    for (const route of routes) {
      if (has.has(familyOf(route.to.address))) this.#addRoute(route);
      else console.warn(`warren: IPv6 is off here: "${this.#name}" is the way to everywhere by IPv4 alone`);
    }
    this.#setDns(Family.Ipv4, dns);
    this.#setDns(Family.Ipv6, dns);
  }

  /**
   * Puts everything back, newest first.
   *
   * @throws {AggregateError} when something could not be; the rest was.
   */
  undo(): void {
    const failures: Error[] = [];
    for (const { what, undo } of this.#undos.reverse()) {
      const failed = undo();
      // What is gone is back already.
      if (
        failed !== Win32.NO_ERROR && failed !== Win32.ERROR_NOT_FOUND && failed !== Win32.ERROR_FILE_NOT_FOUND
      ) {
        failures.push(win32Error(`undo: ${what}`, "undo", failed));
      }
    }
    this.#undos.length = 0;
    if (failures.length > 0) throw new AggregateError(failures, `Cannot put "${this.#name}" back as it was`);
  }

  /** Windows' counters of the interface; `undefined` when it has none of this name any more. */
  statistics(): DeviceStatistics | undefined {
    if (this.#iphlpapi.GetIfEntry2(this.#ifRow) !== Win32.NO_ERROR) return undefined;
    const view = viewOf(this.#ifRow);
    const count = (offset: number) => Number(view.getBigUint64(offset, true));
    return {
      rxPackets: count(IfRow.InUcastPkts) + count(IfRow.InNUcastPkts),
      rxBytes: count(IfRow.InOctets),
      rxDropped: count(IfRow.InDiscards) + count(IfRow.InErrors),
      txPackets: count(IfRow.OutUcastPkts) + count(IfRow.OutNUcastPkts),
      txBytes: count(IfRow.OutOctets),
      txDropped: count(IfRow.OutDiscards) + count(IfRow.OutErrors),
    };
  }

  /** Whether the adapter's MTU stays what it was. */
  #keepsMtu({ mtu }: CheckedDeviceOptions): boolean {
    return this.#stays && mtu === undefined;
  }

  #attempt(family: Family): string {
    return `set up ${family === Family.Ipv4 ? "IPv4" : "IPv6"} on "${this.#name}"`;
  }

  /**
   * A protocol's row of the interface, as soon as there is one. Where it is not needed, `undefined` if it is not there
   * within so many milliseconds.
   */
  async #awaitRow(family: Family, needed: boolean, limit: number): Promise<Row | undefined> {
    const { GetIpInterfaceEntry, InitializeIpInterfaceEntry } = this.#iphlpapi;
    const row = interfaceRow(this.#luid, family, InitializeIpInterfaceEntry);
    const start = performance.now();
    for (;;) {
      const failed = GetIpInterfaceEntry(row);
      if (failed === Win32.NO_ERROR) return row;
      const absent = failed === Win32.ERROR_NOT_FOUND || failed === Win32.ERROR_FILE_NOT_FOUND;
      if (absent && !needed && performance.now() - start >= limit) return undefined;
      if (!absent || performance.now() - start > ROW_LIMIT) {
        const remedy = absent ? "the interface did not appear" : undefined;
        throw refused(this.#attempt(family), "GetIpInterfaceEntry", failed, remedy);
      }
      await new Promise((resolve) => setTimeout(resolve, ROW_AGAIN));
    }
  }

  #setInterface(family: Family, row: Row, options: CheckedDeviceOptions): void {
    const { SetIpInterfaceEntry } = this.#iphlpapi;
    const what = this.#attempt(family);
    const view = viewOf(row);
    // As it was read, it may be longer than Windows takes when it is set.
    view.setUint32(InterfaceRow.SitePrefixLength, 0, true);
    const before = row.slice();
    const isDefault = options.routes.some(({ to }) => to.length === 0 && familyOf(to.address) === family);
    const metric = options.interfaceMetric ?? (isDefault ? 0 : undefined);
    if (metric !== undefined) {
      view.setUint8(InterfaceRow.UseAutomaticMetric, 0);
      view.setUint32(InterfaceRow.Metric, metric, true);
    }
    if (!this.#keepsMtu(options)) {
      const least = family === Family.Ipv6 ? IPV6_MIN_MTU : MIN_MTU_IPV4;
      view.setUint32(InterfaceRow.NlMtu, Math.max(this.mtu, least), true);
    }
    view.setUint32(InterfaceRow.DadTransmits, 0, true);
    view.setInt32(InterfaceRow.RouterDiscoveryBehavior, ROUTER_DISCOVERY_DISABLED, true);
    view.setUint8(InterfaceRow.ManagedAddressConfigurationSupported, 0);
    view.setUint8(InterfaceRow.OtherStatefulConfigurationSupported, 0);
    check(what, "SetIpInterfaceEntry", SetIpInterfaceEntry(row));
    if (this.#stays) this.#undos.push({ what, undo: () => SetIpInterfaceEntry(before) });
  }

  #addAddress(prefix: Prefix): void {
    const { CreateUnicastIpAddressEntry, DeleteUnicastIpAddressEntry } = this.#iphlpapi;
    const what = `add address ${formatCidr(prefix)} to "${this.#name}"`;
    const row = unicastRow(this.#luid, prefix, this.#iphlpapi.InitializeUnicastIpAddressEntry);
    const failed = CreateUnicastIpAddressEntry(row);
    const exists = failed === Win32.ERROR_OBJECT_ALREADY_EXISTS;
    if (exists && this.#stays) return;
    check(what, "CreateUnicastIpAddressEntry", failed, exists ? "another interface has it" : undefined);
    this.#undos.push({ what, undo: () => DeleteUnicastIpAddressEntry(row) });
  }

  #addRoute({ to, via, metric = 0 }: CheckedRoute): void {
    const { CreateIpForwardEntry2, DeleteIpForwardEntry2, InitializeIpForwardEntry } = this.#iphlpapi;
    const next = via === undefined ? "" : ` via ${formatAddress(via)}`;
    const what = `add route ${formatCidr(to)}${next} on "${this.#name}"`;
    const row = forwardRow(this.#luid, to, via, metric, InitializeIpForwardEntry);
    const failed = CreateIpForwardEntry2(row);
    // The key holds the interface: it is this adapter's, such as the route to its own network.
    if (failed === Win32.ERROR_OBJECT_ALREADY_EXISTS) return;
    check(what, "CreateIpForwardEntry2", failed);
    this.#undos.push({ what, undo: () => DeleteIpForwardEntry2(row) });
  }

  #setDns(family: Family, dns: readonly Address[]): void {
    const { SetInterfaceDnsSettings } = this.#iphlpapi;
    const servers = dns.filter((address) => familyOf(address) === family).map(formatAddress).join(",");
    const what = `use name servers ${servers} on "${this.#name}"`;
    const set = (text: string): number => {
      if (SetInterfaceDnsSettings === null) return Win32.ERROR_NOT_SUPPORTED;
      this.#dnsText = wideString(text);
      const settings = dnsSettings(family, BigInt(addressOf(this.#dnsText)));
      return SetInterfaceDnsSettings(this.#guid, settings);
    };
    if (servers === "") {
      // Windows may remember some of a process that crashed.
      if (!this.#stays) set("");
      return;
    }
    const failed = set(servers);
    const remedy = failed === Win32.ERROR_NOT_SUPPORTED ? "Windows 10 2004 has this first" : undefined;
    check(what, "SetInterfaceDnsSettings", failed, remedy);
    this.#undos.push({ what, undo: () => set("") });
  }
}

function check(what: string, operation: string, failed: number, remedy?: string): void {
  if (failed !== Win32.NO_ERROR) throw refused(what, operation, failed, remedy);
}

/** The error for a call that failed; `remedy` is what this error of this call means, where it means something. */
function refused(what: string, operation: string, failed: number, remedy?: string): Error {
  const denied = failed === Win32.ERROR_ACCESS_DENIED ? ADMINISTRATOR_REMEDY : undefined;
  return win32Error(what, operation, failed, remedy ?? denied);
}
