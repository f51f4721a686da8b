/**
 * Reports when an interface goes up or down or its MTU changes.
 *
 *     change of any interface ─► IP Helper's thread: SetEvent(event) ─► the loop's wait ends ─► drain() reads the row
 *
 * IP Helper's callback is SetEvent itself, with the event as the context. A callback in TypeScript could deadlock: IP
 * Helper's thread would wait for the script's thread, while that one waits in CancelMibChangeNotify2 for all callbacks
 * to return. IP Helper passes more arguments than SetEvent has parameters and ignores the result. On x64 and arm64 this
 * is harmless, because the extra arguments are in registers that SetEvent does not read.
 */

import type { DeviceEvent, Waitable } from "../../lib/core/mod.ts";
import { AF_UNSPEC, Family, InterfaceRow, iphlpapi } from "./iphlpapi.ts";
import { functionAddress, kernel32 } from "./kernel32.ts";
import { interfaceRow, type Row } from "./rows.ts";
import { awaitUnused } from "./waiter.ts";
import { Win32, win32Error } from "./win32_error.ts";
import { viewOf } from "../native_memory.ts";

/** Reported state of an interface. */
interface Link {
  readonly up: boolean;
  readonly mtu: number;
}

/** Subscription to the changes of one interface. A change that is reverted before the next `drain` is not reported. */
export class LinkMonitor {
  /** Event that is set when any interface of the machine changes. */
  readonly waitable: Waitable;
  readonly #iphlpapi = iphlpapi();
  readonly #kernel32 = kernel32();
  /** MIB_IPINTERFACE_ROWs for IPv4 and IPv6. The first that exists is used: a system may lack one IP version. */
  readonly #rows: readonly Row[];
  readonly #notification = new BigUint64Array(1);
  #link: Link;
  #closed = false;

  /**
   * Subscribes to changes of an interface.
   *
   * @throws {DriverError} when the event cannot be created or IP Helper refuses the subscription.
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
    const failed = NotifyIpInterfaceChange(AF_UNSPEC, setEvent, event, 0, this.#notification);
    if (failed !== Win32.NO_ERROR) {
      CloseHandle(event);
      throw win32Error(`watch "${name}"`, "NotifyIpInterfaceChange", failed);
    }
    this.#link = this.#read() ?? { up: true, mtu: 0 };
  }

  /** Returns the changes since the last call: often none, because the event is also set for other interfaces. */
  drain(): DeviceEvent[] {
    const events: DeviceEvent[] = [];
    // Without a row the interface is gone, which the session reports as its failure.
    const { up, mtu } = this.#closed ? this.#link : this.#read() ?? this.#link;
    if (mtu !== this.#link.mtu) events.push({ kind: "mtu", mtu });
    if (up !== this.#link.up) events.push({ kind: up ? "up" : "down", mtu });
    this.#link = { up, mtu };
    return events;
  }

  /** Ends the subscription; resolves when the event is closed. Further calls do nothing. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    // Blocks until running callbacks have returned, which SetEvent does at once.
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
