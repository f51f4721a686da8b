/** A packet whose wakeup Wintun missed is delivered without a next one; nudge_test.ts runs it, with `miss=1`. */

import { ok, strictEqual } from "node:assert/strict";
import type { WintunDevice } from "../../../driver/windows/device.ts";
import { openTunnel, type Tunnel } from "../../../runtime/mod.ts";
import { countersOf, openStandIn, wide } from "./stand_in.ts";

const standIn = openStandIn();
const PACKET = Uint8Array.of(0x45, 0, 0, 20, ...new Uint8Array(16));
const TIMEOUT = 5000;
/** Many times the delay of a nudge (milliseconds). */
const AFTERWARDS = 200;

function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Waits until the system has a packet from the script. */
async function taken(name: string): Promise<void> {
  const bytes = new Uint8Array(PACKET.length);
  for (const start = performance.now(); performance.now() - start < TIMEOUT; await delay(1)) {
    if (standIn.StandInTake(wide(name), bytes, bytes.length) === PACKET.length) return;
  }
  throw new Error("The packet stays in the ring");
}

async function opened(name: string, use: (tunnel: Tunnel, device: WintunDevice) => Promise<void>) {
  await using tunnel = await openTunnel({ name, signals: false, watchdog: 0 });
  const running = tunnel.run();
  await use(tunnel, tunnel.device as WintunDevice);
  tunnel.close();
  await running;
}

const options = { sanitizeOps: false, sanitizeResources: false };

Deno.test(
  "a packet whose wakeup was missed is delivered soon by one nudge, which is counted",
  options,
  async () => {
    await opened("missed", async (tunnel, device) => {
      tunnel.send(PACKET);
      await taken("missed");
      await delay(AFTERWARDS);
      strictEqual(standIn.StandInTake(wide("missed"), new Uint8Array(20), 20), 0);
      strictEqual(device.nudges, 1);
      const { sent, discarded, misuses } = countersOf(standIn);
      strictEqual([sent, discarded, misuses].join(), "2,1,0");
      strictEqual(device.statistics()!.rxDropped, 0);
    });
  },
);

Deno.test("there is no nudge while packets are written, and one after the last", options, async () => {
  await opened("steady", async (tunnel, device) => {
    const start = performance.now();
    let longest = 0;
    for (let last = start; last - start < AFTERWARDS;) {
      tunnel.send(PACKET);
      await delay(1);
      const now = performance.now();
      longest = Math.max(longest, now - last);
      last = now;
    }
    // On a busy machine, a pause may look like the end.
    ok(device.nudges === 0 || longest > 15, `${device.nudges} nudges; ${longest} ms`);
    const before = device.nudges;
    await delay(AFTERWARDS);
    strictEqual(device.nudges, before + 1);
  });
});
