/** `wintun`: what Warren adds to Wintun's own calls, under Wine with the stand-ins, and what an idle script costs. */

import { hasWine, openWine, type Wine } from "../kit/wine.ts";
import { RunningScript } from "../system/windows/lab.ts";
import type { Way, WintunFigures } from "./_wintun_process.ts";
import { processorTime, ratio, summarize } from "./measure.ts";
import { atMost, type Contender, type Metric, type Report, say } from "./report.ts";
import { delay } from "./wait.ts";

// Implementation
const FULL = { rounds: 120, packets: 15_000, heapPackets: 10_000_000, idleSeconds: 30 };
const QUICK = { rounds: 30, packets: 12_000, heapPackets: 2_000_000, idleSeconds: 5 };
/** How long a script has been open before its idle cost is measured (milliseconds). */
const SETTLE = 3000;
const NAMES: Record<Way, string> = {
  c: "calls from C",
  bare: "calls from TypeScript",
  device: "WintunDevice",
  tunnel: "tunnel",
};
const IDLE = "idle icmp_echo.ts";

const METRICS: readonly Metric[] = [
  { key: "read_ns", title: "read ns/packet", digits: 0 },
  { key: "write_ns", title: "write ns/packet", digits: 0 },
  { key: "own_read_ns", title: "own, reading", digits: 0 },
  { key: "own_write_ns", title: "own, writing", digits: 0 },
  { key: "heap_bytes_per_packet", title: "heap bytes/packet", digits: 2 },
  { key: "processor_percent", title: "processor %", digits: 2 },
];

/** Runs the bench. */
export async function benchWintun(quick: boolean, signal: AbortSignal): Promise<Report> {
  const { rounds, packets, heapPackets, idleSeconds } = quick ? QUICK : FULL;
  if (!hasWine()) throw new Error("Cannot bench wintun: there is no Wine");
  await using wine = await openWine();
  const figures = await measure(wine, [rounds, packets, heapPackets], signal);
  const processorPercent = await idle(wine, idleSeconds, signal);
  const contenders = (Object.keys(NAMES) as Way[]).map((way): Contender => ({
    name: NAMES[way],
    figures: {
      read_ns: figures.read[way],
      write_ns: figures.write[way],
      ...(way === "c" ? {} : { own_read_ns: own(figures.read, way), own_write_ns: own(figures.write, way) }),
      ...(way === "tunnel" ? { heap_bytes_per_packet: [figures.heapBytesPerPacket] } : {}),
    },
  }));
  const mostOwn = (metric: string, costs: Record<Way, number[]>) =>
    atMost(`${metric} ${NAMES.tunnel}`, summarize(own(costs, "tunnel")).median, 400);
  return {
    bench: "wintun",
    metrics: METRICS,
    contenders: [...contenders, { name: IDLE, figures: { processor_percent: [processorPercent] } }],
    ratios: {
      [`read_ns ${NAMES.tunnel}/${NAMES.c}`]: ratio(figures.read.tunnel, figures.read.c),
      [`write_ns ${NAMES.tunnel}/${NAMES.c}`]: ratio(figures.write.tunnel, figures.write.c),
    },
    targets: [
      mostOwn("own_read_ns", figures.read),
      mostOwn("own_write_ns", figures.write),
      atMost("heap_bytes_per_packet", figures.heapBytesPerPacket, 1),
      atMost(`processor_percent ${IDLE}`, processorPercent, 1),
    ],
    missing: ["Windows: this is Wine, and a stand-in for wintun.dll"],
    notes: [
      "Packets of 1,400 bytes that the stand-in makes and takes within the library's calls, without a thread or a",
      "socket; time passed on one thread. calls: Receive, copy, Release; Allocate, copy, Send; from C within the",
      "stand-in. The copy is RtlMoveMemory everywhere, which takes 0.8 us under Wine. own: without what the calls",
      "and the copy take from C in the same round; FFI is in it. tunnel: device, loop, a handler that drops what it",
      "reads; a far end that makes what is written.",
      `heap: ${heapPackets / 1e6} million packets that a handler turns round.`,
      `processor: deno.exe with all its threads, in ${idleSeconds} s.`,
    ],
  };
}

/** What is neither the library's nor the copy's, round by round: FFI is in it. */
function own(costs: Record<Way, number[]>, way: Way): number[] {
  return costs[way].map((figure, round) => figure - costs.c[round]!);
}

async function measure(wine: Wine, counts: readonly number[], signal: AbortSignal): Promise<WintunFigures> {
  say("calls, device and tunnel in turn");
  const flags = ["--no-check", "--no-prompt", "--allow-ffi", "--allow-env", "--v8-flags=--expose-gc"];
  const args = ["run", ...flags, "tests/bench/_wintun_process.ts", ...counts.map(String)];
  const { stdout } = await wine.deno(args, { env: await wine.standIns(), signal });
  signal.throwIfAborted();
  return JSON.parse(stdout.trim().split("\n").at(-1)!);
}

/** What a script costs that has nothing to do, of what one processor has (percent). */
async function idle(wine: Wine, seconds: number, signal: AbortSignal): Promise<number> {
  say(`${IDLE}, for ${seconds} s`);
  const child = wine.spawnDeno(["run", "--no-check", "--no-prompt", "--allow-ffi", "scripts/icmp_echo.ts"], {
    env: await wine.standIns(),
    signal,
  });
  const script = new RunningScript(child);
  await script.said("is open");
  await delay(SETTLE, signal);
  const [before, start] = [processorTime(child.pid), performance.now()];
  await delay(seconds * 1000, signal);
  const percent = (processorTime(child.pid) - before) / 1e4 / (performance.now() - start);
  await script.interrupt();
  return percent;
}
