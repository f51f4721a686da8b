/** Options of tunnels: what the check returns, and the loop, whose clock is the stages' time. */

import assert from "node:assert/strict";
import { setImmediate } from "node:timers/promises";
import { ManualClock, type StageContext } from "../../../lib/core/mod.ts";
import { Impairment } from "../../../lib/stage/impair/mod.ts";
import { Loop } from "../../../runtime/engine/loop.ts";
import { openTunnel } from "../../../runtime/mod.ts";
import { checkTunnelOptions } from "../../../runtime/tunnel/tunnel_options.ts";
import { ManualEnd, QUIET } from "../../kit/tunnel.ts";

const HOUR = 3_600_000;

/** Lets the loop do all that it has to do. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 100; turn++) await setImmediate();
}

Deno.test("openTunnel() with a loop runs timers of stages in the time of its clock", async () => {
  const clock = new ManualClock();
  const loop = new Loop(clock);
  const [device, far] = [new ManualEnd("device"), new ManualEnd("far")];
  const times: number[] = [];
  const note = (_: unknown, { now }: StageContext) => void times.push(now);
  const delay = new Impairment({ outbound: { delay: HOUR } });
  const tunnel = await openTunnel({ device, far, loop, stages: [delay, note], ...QUIET });
  const running = tunnel.run();
  device.come(Uint8Array.of(0x45));
  await settle();
  clock.advance(HOUR - 1);
  loop.wake();
  await settle();
  assert.deepEqual(far.written, []);
  clock.advance(1);
  loop.wake();
  await far.wrote(1);
  assert.deepEqual(times, [HOUR]);
  tunnel.close();
  await running;
});

Deno.test("checkTunnelOptions() fills in defaults, parses URLs, and keeps what was given", () => {
  const given = { far: "udp://192.0.2.1:4500", linux: { queues: 3 } };
  const checked = checkTunnelOptions(given);
  assert.equal(checked.given, given);
  assert.equal(typeof checked.far, "function");
  assert.equal(checked.deviceOptions.name, "tun%d");
  assert.equal(checked.workers, Deno.build.os === "linux" ? 3 : 1);
  assert.deepEqual([checked.signals, checked.watchdog, checked.stages], [true, 5000, []]);
  assert.equal(checked.busyPoll, 0);
  assert.equal(checkTunnelOptions({ busyPoll: 250 }).busyPoll, 250);
});

Deno.test("checkTunnelOptions() refuses device options and loops of the wrong kind", () => {
  const refuses = (options: object, message: string) =>
    assert.throws(() => checkTunnelOptions(options), { name: "TypeError", message });
  refuses({ linux: null }, "Cannot open a tunnel: linux must be an object, got null");
  refuses(
    { linux: { uring: 1 } },
    'Cannot open a tunnel: linux.uring must be true, false or "oneshot", got 1',
  );
  refuses(
    { address: [7] },
    "Cannot open a tunnel: address must be a string or an array of strings, got an array",
  );
  refuses({ loop: {} }, "Cannot open a tunnel: loop must be a Loop, got an object");
});
