/** Events of a Wintun device, checked under Wine; events_test.ts runs it. */

import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { Family, InterfaceRow, iphlpapi } from "../../../driver/windows/iphlpapi.ts";
import { interfaceRow } from "../../../driver/windows/rows.ts";
import { Verdict } from "../../../lib/core/mod.ts";
import { openTunnel, type Tunnel } from "../../../runtime/mod.ts";
import { openStandIn, wide } from "./stand_in.ts";
import { viewOf } from "../../../driver/native_memory.ts";

const { symbols: { StandInConnect } } = Deno.dlopen(Deno.env.get("WARREN_IPHLPAPI")!, {
  // void StandInConnect(ULONG64 luid, BOOL connected);
  StandInConnect: { parameters: ["u64", "i32"], result: "void" },
});
const { symbols: { StandInFind } } = Deno.dlopen(Deno.env.get("WARREN_WINTUN")!, {
  // BOOL StandInFind(const WCHAR *name, DWORD64 *luid);
  StandInFind: { parameters: ["buffer", "buffer"], result: "i32" },
});
const standIn = openStandIn();

const PACKETS = 20;
const PACKET = Uint8Array.of(0x45, 0, 0, 20, ...new Uint8Array(16));

function luidOf(name: string): bigint {
  const luid = new BigUint64Array(1);
  ok(StandInFind(wide(name), luid) !== 0);
  return luid[0]!;
}

/** Changes of the interface by another program. */
function setMtu(luid: bigint, mtu: number): void {
  const { GetIpInterfaceEntry, SetIpInterfaceEntry, InitializeIpInterfaceEntry } = iphlpapi();
  const row = interfaceRow(luid, Family.Ipv4, InitializeIpInterfaceEntry);
  strictEqual(GetIpInterfaceEntry(row), 0);
  viewOf(row).setUint32(InterfaceRow.SitePrefixLength, 0, true);
  viewOf(row).setUint32(InterfaceRow.NlMtu, mtu, true);
  strictEqual(SetIpInterfaceEntry(row), 0);
}

async function opened(name: string, use: (tunnel: Tunnel, luid: bigint) => Promise<void>): Promise<void> {
  await using tunnel = await openTunnel({ name, mtu: 1500, signals: false, watchdog: 0 });
  const running = tunnel.run(() => Verdict.Drop);
  await use(tunnel, luidOf(name));
  tunnel.close();
  await running;
}

const options = { sanitizeOps: false, sanitizeResources: false };

Deno.test("events() reports up, down and mtu, and the mtu of the device follows", options, async () => {
  await opened("news", async ({ device }, luid) => {
    const events = device.events()[Symbol.asyncIterator]();
    setMtu(luid, 1400);
    deepStrictEqual((await events.next()).value, { kind: "mtu", mtu: 1400 });
    strictEqual(device.mtu, 1400);
    StandInConnect(luid, 0);
    deepStrictEqual((await events.next()).value, { kind: "down", mtu: 1400 });
    StandInConnect(luid, 1);
    deepStrictEqual((await events.next()).value, { kind: "up", mtu: 1400 });
  });
});

Deno.test("events() reports neither other interfaces nor a change twice", options, async () => {
  await opened("mine", async ({ device }, luid) => {
    await opened("other", async (_, other) => {
      const events = device.events()[Symbol.asyncIterator]();
      setMtu(other, 1300);
      setMtu(luid, 1500);
      StandInConnect(other, 0);
      setMtu(luid, 1450);
      deepStrictEqual((await events.next()).value, { kind: "mtu", mtu: 1450 });
    });
  });
});

Deno.test("events() reports changes while packets pass", options, async () => {
  await opened("busy", async ({ device }, luid) => {
    const events = device.events()[Symbol.asyncIterator]();
    let received: unknown;
    const next = events.next().then(({ value }) => received = value);
    setMtu(luid, 1400);
    for (let round = 0; round < 1000 && received === undefined; round++) {
      for (let i = 0; i < PACKETS; i++) standIn.StandInInject(wide("busy"), PACKET, PACKET.length);
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    deepStrictEqual(await next, { kind: "mtu", mtu: 1400 });
  });
});

Deno.test("an existing adapter keeps its mtu, unless another one is requested", options, async () => {
  const adapter = standIn.WintunCreateAdapter(wide("kept"), wide("Test"), null);
  setMtu(luidOf("kept"), 1300);
  for (const [mtu, expected] of [[undefined, 1300], [1400, 1400], [undefined, 1300]] as const) {
    await using tunnel = await openTunnel({ name: "kept", mtu, signals: false, watchdog: 0 });
    strictEqual(tunnel.device.mtu, expected);
  }
  standIn.WintunCloseAdapter(adapter);
});

Deno.test("events() reports gone, and ends with the device", options, async () => {
  await using tunnel = await openTunnel({ name: "goes", signals: false, watchdog: 0 });
  const all = Array.fromAsync(tunnel.device.events());
  const running = tunnel.run(() => Verdict.Drop);
  ok(standIn.StandInEnd(wide("goes")) !== 0);
  let failed = false;
  await running.catch(() => failed = true);
  ok(failed);
  deepStrictEqual(await all, [{ kind: "gone", mtu: 1500 }]);
});
