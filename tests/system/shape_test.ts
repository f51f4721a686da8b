/** Real programs through shape.ts: they get its rate, and a ping beside them does not wait. */

import assert from "node:assert/strict";
import { type Namespace, systemTest } from "../kit/system.ts";
import { CROSSING, Crossing, firstAnswer, iperf, kernelCounters, ping, startScript } from "../kit/traffic.ts";

const NEEDS = { programs: ["ip", "ping", "iperf3", "sysctl"] };
const FLAGS = {
  "with offload": ["--far", "tun:right"],
  "without offload": ["--no-offload", "--far", "tun:right?offload=no"],
} as const;

// What shape.ts says.
const THERE = 20e6;
const BACK = 50e6;
/** With offload, the kernel counts segments that were written together with one header. */
const COUNTED_TOGETHER = 1448 / 1500;

/** How many bits a second of IP come out of a device, in the seconds in which something else is done. */
async function rateOf(namespace: Namespace, device: string, work: () => Promise<unknown>): Promise<number> {
  const read = async () => {
    const before = performance.now();
    const { rx } = await kernelCounters(namespace, device);
    return { bytes: rx.bytes, time: (before + performance.now()) / 2 };
  };
  const start = await read();
  await work();
  const end = await read();
  return (end.bytes - start.bytes) * 8 / (end.time - start.time) * 1000;
}

for (const [offload, flags] of Object.entries(FLAGS)) {
  systemTest(
    `iperf3 gets the rates of shape.ts ${offload}, and a ping beside it does not wait`,
    NEEDS,
    async () => {
      await using crossing = await Crossing.open();
      const { left, middle, right } = crossing;
      await using script = await startScript(middle, "shape.ts", ...flags);
      await crossing.route();
      await firstAnswer(left, CROSSING.right.ipv4);
      const ways = [
        { what: "TCP there", args: [], device: "right", wanted: THERE },
        { what: "TCP back", args: ["-R"], device: "left", wanted: BACK },
        { what: "UDP there", args: ["-u", "-b", "40M", "-l", "1400"], device: "right", wanted: THERE },
      ];
      for (const { what, args, device, wanted } of ways) {
        const running = iperf(left, right, CROSSING.right.ipv4, "-t", "5", ...args);
        // The beginning, with the burst and TCP's slow start, is not measured.
        await ping(left, "-c", "15", "-i", "0.1", CROSSING.right.ipv4);
        let times: number[] = [];
        const rate = await rateOf(middle, device, async () => {
          const pings = await ping(left, "-c", "25", "-i", "0.1", CROSSING.right.ipv4);
          times = pings.times.toSorted((a, b) => a - b);
        });
        await running;
        const least = wanted * (offload === "with offload" ? COUNTED_TOGETHER : 1) * 0.95;
        assert.ok(rate > least && rate < wanted * 1.02, `${what}: the rate is ${rate}, not ${wanted}`);
        const median = times[times.length >> 1]!;
        assert.ok(median < 15, `${what}: a ping takes ${median} ms`);
      }
      assert.equal((await script.stop()).code, 0);
    },
  );
}
