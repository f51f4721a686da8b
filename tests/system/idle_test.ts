/** What a script costs while it has nothing to do, and how soon it is there. */

import assert from "node:assert/strict";
import { type Namespace, openNamespace, systemTest } from "../kit/system.ts";
import { Running, scriptCommand } from "../kit/traffic.ts";
import { measureIdle, measurePinged } from "./idle_scenario.ts";

const NEEDS = { programs: ["ip", "ping"] };
const IDLE_SECONDS = 60;
const MAX_PROCESSOR_PERCENT = 1;
const MAX_GROWTH_PERCENT = 5;
const PINGED_SECONDS = 10;
/** Breaths every 2 ms keep the path in the caches for 1.5 s after a packet, which is all the time here. */
const MAX_PINGED_PERCENT = 5;
const STARTS = 5;
const MAX_START_MILLISECONDS = 400;

systemTest(
  "Scripts without packets cost less than 1 % of a processor, and no more memory",
  NEEDS,
  async () => {
    for (const { script, processorPercent, memoryBefore, memoryAfter } of await measureIdle(IDLE_SECONDS)) {
      const growth = (memoryAfter / memoryBefore - 1) * 100;
      const figures = `${script}: ${processorPercent.toFixed(2)} % of a processor, memory ` +
        `${(memoryBefore / 1024).toFixed(1)} MiB, ${growth.toFixed(2)} % growth in ${IDLE_SECONDS} s`;
      console.log(figures);
      assert.ok(processorPercent < MAX_PROCESSOR_PERCENT, figures);
      // V8 gives memory back after a while: less is well.
      assert.ok(growth <= MAX_GROWTH_PERCENT, figures);
    }
  },
);

systemTest("One ping per second costs icmp_echo.ts at most 5 % of a processor", NEEDS, async () => {
  const processorPercent = await measurePinged(PINGED_SECONDS);
  const figures = `icmp_echo.ts: ${processorPercent.toFixed(2)} % of a processor at one ping per second`;
  console.log(figures);
  assert.ok(processorPercent <= MAX_PINGED_PERCENT, figures);
});

/** Milliseconds from the start of icmp_echo.ts to the first answered ping. */
async function timeStart(namespace: Namespace): Promise<number> {
  // With a route elsewhere, ping starts before the device is there; the device's own is preferred.
  const pings = namespace.spawn("ping", ["-n", "-D", "-i", "0.005", "-c", "1", "-w", "20", "10.9.0.77"]);
  await using ping = new Running(pings, pings.stdout, pings.stderr);
  const words = await scriptCommand("icmp_echo.ts");
  const start = performance.timeOrigin + performance.now();
  const child = namespace.spawn(Deno.execPath(), words, { stdout: "null" });
  await using script = new Running(child, child.stderr);
  const { heard } = await ping.ended();
  const answer = /^\[([\d.]+)\] \d+ bytes from 10\.9\.0\.77: /m.exec(heard);
  assert.ok(answer !== null, heard + script.heard);
  await script.stop();
  return Number(answer[1]) * 1000 - start;
}

systemTest("icmp_echo.ts answers a ping within 400 ms after its start", NEEDS, async () => {
  await using namespace = await openNamespace();
  await namespace.command("ip", ["addr", "add", "10.9.0.1/32", "dev", "lo"]);
  const elsewhere = ["dev", "lo", "src", "10.9.0.1", "metric", "1000"];
  await namespace.command("ip", ["route", "add", "10.9.0.0/24", ...elsewhere]);
  await timeStart(namespace);
  const times: number[] = [];
  for (let i = 0; i < STARTS; i++) times.push(await timeStart(namespace));
  const figures = times.map((time) => time.toFixed(0)).join(", ");
  console.log(`from start to the first answer: ${figures} ms`);
  const median = times.toSorted((a, b) => a - b)[STARTS >> 1]!;
  assert.ok(median <= MAX_START_MILLISECONDS, `median of ${figures} ms`);
});
