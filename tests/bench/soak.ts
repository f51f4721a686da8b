/** `soak`: ten minutes at full rate: whether memory stays as it is, and every packet is accounted for. */

import type { DeviceStatistics, TunnelStats } from "../../lib/core/mod.ts";
import { type Entrant, Name, warren } from "./contenders.ts";
import { Contest, type Runner } from "./contest.ts";
import { DEVICES } from "./crossing.ts";
import { summarize } from "./measure.ts";
import { atMost, type Metric, type Report, say } from "./report.ts";
import { delay } from "./wait.ts";

// Implementation
/** Seconds; a cycle is a stream of TCP, then datagrams. */
const FULL = { cycles: 20, tcp: 20, udp: 10, warmUp: 60, window: 10 };
const QUICK = { cycles: 4, tcp: 4, udp: 3, warmUp: 8, window: 4 };
const DATAGRAM_BYTES = 64;
/** Milliseconds in which what is under way arrives. */
const SETTLE = 500;
/** The start of a line of V8's may stand in front: it writes them a buffer at a time. */
const TOLD = /tunnel (\{.*\})$/;
const BARS = "▁▂▃▄▅▆▇█";
/** Bars of a plot. */
const PLOT = 60;
const MEBIBYTE = 1 << 20;

const PACKETS: Metric = { key: "million_packets", title: "million packets", digits: 1 };
const MEMORY: Metric = { key: "resident_mib", title: "resident MiB", digits: 1 };
const GROWTH: Metric = { key: "resident_growth_percent", title: "growth %", digits: 2 };
const HEAP: Metric = { key: "heap_growth_bytes_per_packet", title: "heap bytes/packet", digits: 3 };
const COLLECTIONS: Metric = {
  key: "collections_per_million_packets",
  title: "collections/million",
  digits: 2,
};
const UNACCOUNTED: Metric = { key: "unaccounted_packets", title: "unaccounted", digits: 0 };
const METRICS = [PACKETS, MEMORY, GROWTH, HEAP, COLLECTIONS, UNACCOUNTED];

/** What `peers/relay_told.ts` tells. */
interface Told {
  readonly stats: TunnelStats;
  readonly near: DeviceStatistics;
  readonly far: DeviceStatistics;
  readonly heapUsed: number;
}

const SCRIPT = "peers/relay_told.ts";
const FAR = `tun:${DEVICES[1]}`;
const ENTRANTS: readonly Entrant[] = [
  {
    name: Name.Bare,
    about: SCRIPT,
    start: (options) => warren(SCRIPT, ["--far", FAR], options),
  },
  {
    name: Name.PlainBare,
    about: `${SCRIPT} with offload off`,
    start: (options) => warren(SCRIPT, ["--no-offload", "--far", `${FAR}?offload=no`], options),
  },
];

/** Runs the bench. */
export async function benchSoak(quick: boolean, signal: AbortSignal): Promise<Report> {
  const size = quick ? QUICK : FULL;
  await using contest = await Contest.open(ENTRANTS, { watched: true }, signal);
  const plots: string[] = [];
  await contest.atOnce(async (runner) => {
    plots.push(`${runner.name}: ${await soak(runner, size, signal)}`);
  });
  const { cycles, tcp, udp, warmUp, window } = size;
  return {
    bench: "soak",
    metrics: METRICS,
    contenders: contest.runners,
    ratios: {},
    targets: contest.runners.flatMap(({ name, figures }) => [
      atMost(`${GROWTH.key} ${name}`, figures[GROWTH.key]?.[0] ?? NaN, 5),
      atMost(`${HEAP.key} ${name}`, figures[HEAP.key]?.[0] ?? NaN, 1),
      atMost(`${UNACCOUNTED.key} ${name}`, figures[UNACCOUNTED.key]?.[0] ?? NaN, 0),
    ]),
    missing: contest.missing,
    notes: [
      `${cycles} times ${tcp} s of a TCP stream and ${udp} s of ${DATAGRAM_BYTES}-byte datagrams, as many as iperf3 can send, most`,
      `of which the kernel's queue drops; both relays at once. growth: of the highest median of ${window} s over the one`,
      `after ${warmUp} s. heap: what is left of it after a collection, between then and the end. unaccounted: where the`,
      "tunnel's counters do not add up, or differ from the kernel's.",
      "Resident memory from the start to the end, from 0 to the highest:",
      ...plots,
      ...contest.about,
    ],
  };
}

/** Has traffic pass and notes the figures; returns a plot of the memory. */
async function soak(runner: Runner, size: typeof FULL, signal: AbortSignal): Promise<string> {
  const { crossing } = runner;
  const samples: number[] = [];
  const sampling = setInterval(() => samples.push(crossing.residentMemory()), 1000);
  try {
    let before: { told: Told; collections: number } | undefined;
    for (let cycle = 0; cycle < size.cycles; cycle++) {
      await crossing.iperf("-t", String(size.tcp));
      await crossing.iperf("-u", "-l", String(DATAGRAM_BYTES), "-b", "0", "-t", String(size.udp));
      if (samples.length >= size.warmUp) before ??= await look(runner, signal);
      say(`${runner.name}: cycle ${cycle + 1} of ${size.cycles}: ${samples.at(-1)! / MEBIBYTE | 0} MiB`);
    }
    const after = await look(runner, signal);
    const packets = packetsIn(after.told) - packetsIn(before!.told);
    const medians = windows(samples.slice(size.warmUp), size.window);
    runner.note({
      [PACKETS.key]: packetsIn(after.told) / 1e6,
      [MEMORY.key]: medians[0]! / MEBIBYTE,
      [GROWTH.key]: (Math.max(...medians) / medians[0]! - 1) * 100,
      [HEAP.key]: (after.told.heapUsed - before!.told.heapUsed) / packets,
      [COLLECTIONS.key]: (after.collections - before!.collections) / packets * 1e6,
      [UNACCOUNTED.key]: unaccounted(after.told, runner.name === Name.PlainBare),
    });
  } finally {
    clearInterval(sampling);
  }
  return plot(samples);
}

/** What the relay tells when nothing is under way, and how often V8 has collected. */
async function look({ crossing }: Runner, signal: AbortSignal): Promise<{ told: Told; collections: number }> {
  await delay(SETTLE, signal);
  const told: Told = JSON.parse(await crossing.heap!.ask("SIGUSR1", TOLD));
  return { told, collections: (await crossing.heap!.look()).collections };
}

function packetsIn({ stats }: Told): number {
  return stats.outbound.packetsIn + stats.inbound.packetsIn;
}

/** How many packets are missing or too many: in the tunnel, and between it and the kernel. */
function unaccounted({ stats, near, far }: Told, onePacketAWrite: boolean): number {
  const { outbound, inbound, created, dropped, queued } = stats;
  const lost = Object.values(dropped).reduce((sum, count) => sum + count, 0);
  const inside = packetsIn({ stats } as Told) + created - outbound.packetsOut - inbound.packetsOut - lost -
    queued;
  const came = [outbound.packetsIn - near.txPackets, inbound.packetsIn - far.txPackets];
  // What is written together, the kernel counts as one.
  const went = [outbound.packetsOut - far.rxPackets, inbound.packetsOut - near.rxPackets];
  const wrong = onePacketAWrite ? went : went.map((more) => Math.min(0, more));
  return [inside, ...came, ...wrong].reduce((sum, difference) => sum + Math.abs(difference), 0);
}

/** The medians of so many samples each. */
function windows(samples: readonly number[], length: number): number[] {
  return Array.from(
    { length: Math.floor(samples.length / length) },
    (_, i) => summarize(samples.slice(i * length, (i + 1) * length)).median,
  );
}

function plot(samples: readonly number[]): string {
  const most = Math.max(...samples);
  const bars = windows(samples, Math.max(1, Math.ceil(samples.length / PLOT)));
  return bars.map((value) => BARS[Math.round(value / most * (BARS.length - 1))]).join("");
}
