/**
 * Configures an adapter's interface through IP Helper, and undoes the changes.
 *
 * When the process ends, Windows removes an adapter that it created, with its addresses and routes. Only the DNS
 * servers remain after a crash: Windows stores them by the adapter's GUID, and the next start replaces them. Close
 * nevertheless undoes every change, newest first, because Windows is unreliable at removing an interface that still has
 * routes. On an existing adapter, close restores the earlier settings and clears the DNS servers.
 */

import { setTimeout as delay } from "node:timers/promises";
import { type Address, formatAddress, formatCidr, type Prefix } from "../../lib/wire/address.ts";
import { IPV6_MIN_MTU } from "../../lib/wire/header_fields.ts";
import type { DeviceStatistics } from "../../lib/core/mod.ts";
import { addressOf, viewOf } from "../native_memory.ts";
import type { CheckedDeviceOptions, CheckedRoute } from "../options.ts";
import type { Adapter } from "./adapter.ts";
import { Family, IfRow, InterfaceRow, iphlpapi, ROUTER_DISCOVERY_DISABLED } from "./iphlpapi.ts";
import { wideString } from "./kernel32.ts";
import { dnsSettings, familyOf, forwardRow, ifRow, interfaceRow, type Row, unicastRow } from "./rows.ts";
import { ADMINISTRATOR_REMEDY } from "./shell32.ts";
import { Win32, win32Error } from "./win32_error.ts";

// Specification
/** Windows' minimum MTU for IPv4: the datagram size that every host accepts (RFC 791 section 3.1). */
const MIN_MTU_IPV4 = 576;

// Implementation
const DEFAULT_MTU = 1500;
/** Time for a new adapter's rows to appear in IP Helper (milliseconds). */
const ROW_TIMEOUT = 15_000;
const ROW_POLL_INTERVAL = 50;
/** Time for the IPv6 row to appear if only a `default` route needs it (milliseconds). */
const OPTIONAL_ROW_TIMEOUT = 2000;

/**
 * Checks that Windows supports all options.
 *
 * @throws {Deno.errors.NotSupported} when there are policy rules or routing tables, or `up` is false.
 * @throws {RangeError} when the MTU is below 576.
 */
export function checkSupported({ name, rules, routes, up, mtu = DEFAULT_MTU }: CheckedDeviceOptions): void {
  const cannot = `Cannot open device "${name}"`;
  const refuse = (reason: string) => new Deno.errors.NotSupported(`${cannot}: ${reason}`);
  if (rules.length > 0) throw refuse("Windows has no policy rules");
  if (routes.some(({ table }) => table !== undefined)) throw refuse("Windows has no routing tables");
  if (!up) throw refuse("an open Wintun device is always up");
  if (mtu < MIN_MTU_IPV4) {
    throw new RangeError(`${cannot}: mtu must be at least ${MIN_MTU_IPV4} on Windows, got ${mtu}`);
  }
}

/** Configuration of one adapter. */
export class Setup {
  /** MTU (bytes). */
  mtu = DEFAULT_MTU;
  readonly #iphlpapi = iphlpapi();
  /** An existing adapter (`created` is false) outlives the device and keeps its settings. */
  readonly #adapter: Adapter;
  readonly #undos: { what: string; undo: () => number }[] = [];
  readonly #ifRow: Row;
  /** A reference, so that the text is not freed while the DNS settings contain its address. */
  #dnsText: Uint16Array<ArrayBuffer> | undefined;

  /** Prepares the configuration, but changes nothing. */
  constructor(adapter: Adapter) {
    this.#adapter = adapter;
    this.#ifRow = ifRow(adapter.luid);
  }

  /**
   * Configures the interface.
   *
   * @throws {Error} when a call fails: see {@linkcode win32Error}. The caller then calls `undo`.
   */
  async apply(options: CheckedDeviceOptions): Promise<void> {
    const { addresses, routes, dns } = options;
    this.mtu = options.mtu ?? DEFAULT_MTU;
    // On a system without IPv6, a `default` route is IPv4 only.
    const isOptional = ({ isDefault = false, to }: CheckedRoute) => isDefault && to.address.family === 6;
    const needed = [...addresses, ...routes.filter((route) => !isOptional(route)).map(({ to }) => to)];
    const needs = new Set<Family>(needed.map(({ address }) => familyOf(address)));
    const wants = routes.some(isOptional) ? OPTIONAL_ROW_TIMEOUT : 0;
    const has = new Set<Family>();
    // The row of a disabled IP version never appears, so a row is awaited only if it is needed.
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
      else {console.warn(
          `warren: IPv6 is disabled: the default route through "${this.#adapter.name}" is IPv4 only`,
        );}
    }
    this.#setDns(Family.Ipv4, dns);
    this.#setDns(Family.Ipv6, dns);
  }

  /**
   * Undoes every change, newest first.
   *
   * @throws {AggregateError} when some changes could not be undone; all others have been.
   */
  undo(): void {
    const failures: Error[] = [];
    for (const { what, undo } of this.#undos.reverse()) {
      const failed = undo();
      // An object that is gone needs no undo.
      if (
        failed !== Win32.NO_ERROR && failed !== Win32.ERROR_NOT_FOUND && failed !== Win32.ERROR_FILE_NOT_FOUND
      ) {
        failures.push(win32Error(`undo: ${what}`, "undo", failed));
      }
    }
    this.#undos.length = 0;
    if (failures.length > 0) {
      throw new AggregateError(
        failures,
        `Cannot restore "${this.#adapter.name}": some changes could not be undone`,
      );
    }
  }

  /** Returns the interface's counters, or `undefined` when the interface is gone. */
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

  #keepsMtu({ mtu }: CheckedDeviceOptions): boolean {
    return !this.#adapter.created && mtu === undefined;
  }

  #attempt(family: Family): string {
    return `set up ${family === Family.Ipv4 ? "IPv4" : "IPv6"} on "${this.#adapter.name}"`;
  }

  /**
   * Waits for the MIB_IPINTERFACE_ROW of an IP version. If it is not needed, returns `undefined` when it has not
   * appeared after `limit` milliseconds.
   */
  async #awaitRow(family: Family, needed: boolean, limit: number): Promise<Row | undefined> {
    const { GetIpInterfaceEntry, InitializeIpInterfaceEntry } = this.#iphlpapi;
    const row = interfaceRow(this.#adapter.luid, family, InitializeIpInterfaceEntry);
    const start = performance.now();
    for (;;) {
      const failed = GetIpInterfaceEntry(row);
      if (failed === Win32.NO_ERROR) return row;
      const absent = failed === Win32.ERROR_NOT_FOUND || failed === Win32.ERROR_FILE_NOT_FOUND;
      if (absent && !needed && performance.now() - start >= limit) return undefined;
      if (!absent || performance.now() - start > ROW_TIMEOUT) {
        const remedy = absent ? "the interface did not appear" : undefined;
        check(this.#attempt(family), "GetIpInterfaceEntry", failed, remedy);
      }
      await delay(ROW_POLL_INTERVAL);
    }
  }

  #setInterface(family: Family, row: Row, options: CheckedDeviceOptions): void {
    const { SetIpInterfaceEntry } = this.#iphlpapi;
    const what = this.#attempt(family);
    const view = viewOf(row);
    // GetIpInterfaceEntry may return a site prefix length that SetIpInterfaceEntry refuses.
    view.setUint32(InterfaceRow.SitePrefixLength, 0, true);
    const before = row.slice();
    const isDefault = options.routes.some(({ to }) => to.length === 0 && familyOf(to.address) === family);
    const metric = options.interfaceMetric ?? (isDefault ? 0 : undefined);
    if (metric !== undefined) {
      view.setUint8(InterfaceRow.UseAutomaticMetric, 0);
      view.setUint32(InterfaceRow.Metric, metric, true);
    }
    if (!this.#keepsMtu(options)) {
      const min = family === Family.Ipv6 ? IPV6_MIN_MTU : MIN_MTU_IPV4;
      view.setUint32(InterfaceRow.NlMtu, Math.max(this.mtu, min), true);
    }
    view.setUint32(InterfaceRow.DadTransmits, 0, true);
    view.setInt32(InterfaceRow.RouterDiscoveryBehavior, ROUTER_DISCOVERY_DISABLED, true);
    view.setUint8(InterfaceRow.ManagedAddressConfigurationSupported, 0);
    view.setUint8(InterfaceRow.OtherStatefulConfigurationSupported, 0);
    check(what, "SetIpInterfaceEntry", SetIpInterfaceEntry(row));
    if (!this.#adapter.created) this.#undos.push({ what, undo: () => SetIpInterfaceEntry(before) });
  }

  #addAddress(prefix: Prefix): void {
    const { CreateUnicastIpAddressEntry, DeleteUnicastIpAddressEntry } = this.#iphlpapi;
    const what = `add address ${formatCidr(prefix)} to "${this.#adapter.name}"`;
    const row = unicastRow(this.#adapter.luid, prefix, this.#iphlpapi.InitializeUnicastIpAddressEntry);
    const failed = CreateUnicastIpAddressEntry(row);
    const exists = failed === Win32.ERROR_OBJECT_ALREADY_EXISTS;
    if (exists && !this.#adapter.created) return;
    check(what, "CreateUnicastIpAddressEntry", failed, exists ? "another interface has it" : undefined);
    this.#undos.push({ what, undo: () => DeleteUnicastIpAddressEntry(row) });
  }

  #addRoute({ to, via, metric = 0 }: CheckedRoute): void {
    const { CreateIpForwardEntry2, DeleteIpForwardEntry2, InitializeIpForwardEntry } = this.#iphlpapi;
    const next = via === undefined ? "" : ` via ${formatAddress(via)}`;
    const what = `add route ${formatCidr(to)}${next} on "${this.#adapter.name}"`;
    const row = forwardRow(this.#adapter.luid, to, via, metric, InitializeIpForwardEntry);
    const failed = CreateIpForwardEntry2(row);
    // The interface is part of a route's key, so this interface has the route already, such as that to its prefix.
    if (failed === Win32.ERROR_OBJECT_ALREADY_EXISTS) return;
    check(what, "CreateIpForwardEntry2", failed);
    this.#undos.push({ what, undo: () => DeleteIpForwardEntry2(row) });
  }

  #setDns(family: Family, dns: readonly Address[]): void {
    const { SetInterfaceDnsSettings } = this.#iphlpapi;
    const servers = dns.filter((address) => familyOf(address) === family).map(formatAddress).join(",");
    const what = `set DNS servers ${servers} on "${this.#adapter.name}"`;
    const set = (text: string): number => {
      if (SetInterfaceDnsSettings === null) return Win32.ERROR_NOT_SUPPORTED;
      this.#dnsText = wideString(text);
      const settings = dnsSettings(family, BigInt(addressOf(this.#dnsText)));
      return SetInterfaceDnsSettings(this.#adapter.guid, settings);
    };
    if (servers === "") {
      // Removes servers that a crashed process has left.
      if (this.#adapter.created) set("");
      return;
    }
    const failed = set(servers);
    const remedy = failed === Win32.ERROR_NOT_SUPPORTED
      ? "this needs Windows 10 version 2004 or later"
      : undefined;
    check(what, "SetInterfaceDnsSettings", failed, remedy);
    this.#undos.push({ what, undo: () => set("") });
  }
}

/** Throws the error of a failed call. ERROR_ACCESS_DENIED has a default remedy. */
function check(what: string, operation: string, failed: number, remedy?: string): void {
  if (failed === Win32.NO_ERROR) return;
  const denied = failed === Win32.ERROR_ACCESS_DENIED ? ADMINISTRATOR_REMEDY : undefined;
  throw win32Error(what, operation, failed, remedy ?? denied);
}
