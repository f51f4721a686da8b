/**
 * News of one interface: that its link went up or down, that its MTU changed.
 *
 *     IP Helper, on a thread of Windows ─► SetEvent ─► event ─► the loop's one wait ─► drain(): what differs
 *
 * IP Helper calls a function back on its own threads, for every interface of the machine. Were it one of
 * TypeScript, that thread would wait until this one runs it, and ending the notification, which waits for callbacks
 * that run, could wait for ever. So the function is Windows' own SetEvent, and the context that it is called with is
 * an event. A callback has more parameters, and returns nothing: on x64 and arm64 a function may leave what comes in
 * further registers alone, and its result is not looked at.
 */

import type { DeviceEvent, Waitable } from "../../lib/core/mod.ts";
import { ANY_FAMILY, Family, InterfaceRow, iphlpapi } from "./iphlpapi.ts";
import { functionAddress, kernel32 } from "./kernel32.ts";
import { interfaceRow, type Row, viewOf } from "./rows.ts";
import { letGo } from "./waiter.ts";
import { Win32, win32Error } from "./win32_error.ts";

/** What is told of an interface. */
interface Link {
  readonly up: boolean;
  readonly mtu: number;
}

/** News of one interface, from the moment of opening. Changes that undo one another before they are seen are not told. */
export class LinkMonitor {
  /** The event that is set when there may be news. */
  readonly waitable: Waitable;
  readonly #iphlpapi = iphlpapi();
  readonly #kernel32 = kernel32();
  /** One a protocol, in the order in which they are asked: a system may do without one. */
  readonly #rows: readonly Row[];
  readonly #notification = new BigUint64Array(1);
  #link: Link;
  #closed = false;

  /**
   * Subscribes to news of an interface.
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

  /** What differs from the last call, or nothing: most news are of other interfaces. It never waits. */
  drain(): DeviceEvent[] {
    const events: DeviceEvent[] = [];
    // Without a row it is gone, which its session tells, too.
    const { up, mtu } = this.#closed ? this.#link : this.#read() ?? this.#link;
    if (mtu !== this.#link.mtu) events.push({ kind: "mtu", mtu });
    if (up !== this.#link.up) events.push({ kind: up ? "up" : "down", mtu });
    this.#link = { up, mtu };
    return events;
  }

  /** Ends the news and frees the event; settled when no wait looks at it any more. Further calls do nothing. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    // It waits for callbacks that run: SetEvent waits for nobody.
    this.#iphlpapi.CancelMibChangeNotify2(this.#notification[0]!);
    await letGo(this.waitable);
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
