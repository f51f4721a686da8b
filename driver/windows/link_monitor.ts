/**
 * Changes of one interface: link up or down, MTU.
 *
 *     IP Helper, on a thread of Windows ─► SetEvent ─► event ─► wait of the loop ─► drain() compares
 *
 * IP Helper calls back on its own threads, for every interface of the machine. A callback in TypeScript would make that
 * thread wait for this one, and CancelMibChangeNotify2, which waits for running callbacks, could deadlock. So the
 * callback is SetEvent itself, and its context is an event. It is called with more parameters than it has and its
 * result is ignored, which is harmless on x64 and arm64: further parameters are in registers that it does not read.
 */

import type { DeviceEvent, Waitable } from "../../lib/core/mod.ts";
import { ANY_FAMILY, Family, InterfaceRow, iphlpapi } from "./iphlpapi.ts";
import { functionAddress, kernel32 } from "./kernel32.ts";
import { interfaceRow, type Row, viewOf } from "./rows.ts";
import { awaitUnused } from "./waiter.ts";
import { Win32, win32Error } from "./win32_error.ts";

/** State of the interface. */
interface Link {
  readonly up: boolean;
  readonly mtu: number;
}

/** Changes of one interface since it was opened. A change that is reverted before the next `drain` is not reported. */
export class LinkMonitor {
  /** Event that is set after any change of an interface. */
  readonly waitable: Waitable;
  readonly #iphlpapi = iphlpapi();
  readonly #kernel32 = kernel32();
  /** One row per IP version, in the order in which they are tried: a system may lack one. */
  readonly #rows: readonly Row[];
  readonly #notification = new BigUint64Array(1);
  #link: Link;
  #closed = false;

  /**
   * Subscribes to changes of an interface.
   *
   * @throws {DriverError} when Windows refuses.
   */
  constructor(name: string, luid: bigint) {
    const { CreateEventW, CloseHandle, GetLastError } = this.#kernel32;
    const { InitializeIpInterfaceEntry, NotifyIpInterfaceChange } = this.#iphlpapi;
    this.#rows = [Family.Ipv4, Family.Ipv6].map((family) =>
      interfaceRow(luid, family, InitializeIpInterfaceEntry)
    );
    this.waitable = CreateEventW(null, 0, 0, null);
    if (this.waitable === 0) throw win32Error(`watch "${name}"`, "CreateEventW", GetLastError());
    const event = BigInt(this.waitable);
    const setEvent = functionAddress("SetEvent");
    const failed = NotifyIpInterfaceChange(ANY_FAMILY, setEvent, event, 0, this.#notification);
    if (failed !== Win32.NO_ERROR) {
      CloseHandle(event);
      throw win32Error(`watch "${name}"`, "NotifyIpInterfaceChange", failed);
    }
    this.#link = this.#read() ?? { up: true, mtu: 0 };
  }

  /** Returns the changes since the last call, often none: the event also covers other interfaces. Does not wait. */
  drain(): DeviceEvent[] {
    const events: DeviceEvent[] = [];
    // Without a row the interface is gone, which the session reports as well.
    const { up, mtu } = this.#closed ? this.#link : this.#read() ?? this.#link;
    if (mtu !== this.#link.mtu) events.push({ kind: "mtu", mtu });
    if (up !== this.#link.up) events.push({ kind: up ? "up" : "down", mtu });
    this.#link = { up, mtu };
    return events;
  }

  /** Unsubscribes and closes the event; resolves when no wait holds it. Further calls do nothing. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    // Waits for running callbacks; SetEvent returns at once.
    this.#iphlpapi.CancelMibChangeNotify2(this.#notification[0]!);
    await awaitUnused(this.waitable);
    this.#kernel32.CloseHandle(BigInt(this.waitable));
  }

  #read(): Link | undefined {
    for (const row of this.#rows) {
      if (this.#iphlpapi.GetIpInterfaceEntry(row) !== Win32.NO_ERROR) continue;
      const view = viewOf(row);
      return {
        up: view.getUint8(InterfaceRow.Connected) !== 0,
        mtu: view.getUint32(InterfaceRow.NlMtu, true),
      };
    }
  }
}
