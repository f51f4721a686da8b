/**
 * `soak`: ten minutes at full rate: whether memory stays as it is, what is left on the heap, and whether every packet is
 * accounted for.
 *
 *     warm-up ─► a look ─► traffic, memory sampled ─► a look ─► the end, another look
 */

import type { DeviceStatistics, FlowStats, TunnelStats } from "../../lib/core/mod.ts";
import { type Entrant, Name, relayScript, warren } from "./contenders.ts";
import { Contest, type Runner } from "./contest.ts";
import { DEVICES } from "./crossing.ts";
import type { HeapState } from "./heap_watch.ts";
import { summarize } from "./measure.ts";
import type { Told } from "./peers/_tell.ts";
import { atLeast, atMost, equals, type Metric, type Report, say, type Target } from "./report.ts";
import { delay } from "./wait.ts";

// Implementation
const DATAGRAM_BYTES = 64;
const DATAGRAMS = ["-u", "-l", String(DATAGRAM_BYTES), "-b", "0"] as const;
/** A cycle of traffic, by iperf3's flags. */
const CYCLE: readonly (readonly string[])[] = [
  ["--bidir", "-P", "4"],
  DATAGRAMS,
  [],
  [...DATAGRAMS, "-R"],
];
/** Seconds of each part of a cycle; samples in a second, and in a window. The first cycles are the warm-up. */
const FULL = { seconds: 5, warmUp: 2, cycles: 30, samples: 1, window: 10 };
const QUICK = { seconds: 2, warmUp: 2, cycles: 2, samples: 4, window: 4 };
/** The packets of which the heap's growth is told. */
const ENOUGH_PACKETS = 10e6;
/** Milliseconds in which what is under way arrives. */
const SETTLE = 500;
/** A line of V8's may stand in front, cut short: it writes a buffer at a time. */
const TOLD = /told (\{.*\})$/;
const BARS = "▁▂▃▄▅▆▇█";
/** Bars of a plot. */
const PLOT = 60;
const MEBIBYTE = 1 << 20;
const OVER_UDP = "warren over udp";

const PACKETS: Metric = { key: "million_packets", title: "million packets", digits: 1 };
const DROPPED: Metric = { key: "million_dropped_before", title: "dropped before", digits: 1 };
const MEMORY: Metric = { key: "resident_mib", title: "resident MiB", digits: 1 };
const HIGHEST: Metric = { key: "resident_highest_mib", title: "highest", digits: 1 };
const GROWTH: Metric = { key: "resident_growth_percent", title: "growth %", digits: 2 };
const POOL: Metric = { key: "pool_resident_mib", title: "of the pool", digits: 1 };
const HEAP: Metric = { key: "heap_growth_bytes_per_packet", title: "heap bytes/packet", digits: 3 };
const SCAVENGES: Metric = { key: "scavenges_per_million_packets", title: "scavenges/million", digits: 2 };
const FULL_COLLECTIONS: Metric = {
  key: "full_collections_per_million_packets",
  title: "full ones",
  digits: 2,
};
const PAUSES: Metric = { key: "pause_ms_per_million_packets", title: "ms", digits: 2 };
const UNACCOUNTED: Metric = { key: "unaccounted", title: "unaccounted", digits: 0 };
const METRICS = [
  PACKETS,
  DROPPED,
  MEMORY,
  HIGHEST,
  GROWTH,
  POOL,
  HEAP,
  SCAVENGES,
  FULL_COLLECTIONS,
  PAUSES,
  UNACCOUNTED,
];

const RELAY = "peers/relay_told.ts";
const ENTRANTS: readonly Entrant[] = [
  relayScript(Name.Bare, RELAY, true, RELAY),
  relayScript(Name.PlainBare, RELAY, false, `${RELAY} with offload off`),
  {
    name: OVER_UDP,
    about: "peers/udp_told.ts, both ends of a tunnel in one process and one loop",
    start: (options) => warren("peers/udp_told.ts", [], options),
  },
];

/** What a relay tells when nothing is under way. */
interface Look {
  readonly told: Told;
  /** The heap's state before that, and after it: a collection is between them. */
  readonly before: HeapState;
  readonly after: HeapState;
}

/** Two counts of the same. */
interface Comparison {
  readonly what: string;
  readonly ours: number;
  readonly theirs: number;
  /** What is written together, the kernel counts as one: ours may be more. */
  readonly grouped?: boolean;
}

/** Runs the bench. */
export async function benchSoak(quick: boolean, signal: AbortSignal): Promise<Report> {
  const size = quick ? QUICK : FULL;
  await using contest = await Contest.open(ENTRANTS, { watched: true }, signal);
  const plots: string[] = [];
  const wrong: Target[][] = [];
  await contest.atOnce(async (runner, index) => {
    const { plot, comparisons } = await soak(runner, size, signal);
    plots[index] = `${plot}, ${runner.name}`;
    wrong[index] = comparisons.filter((each) => differ(each) > 0).map((each) => toTarget(each, runner.name));
  });
  const { seconds, warmUp, cycles, window, samples } = size;
  return {
    bench: "soak",
    metrics: METRICS,
    contenders: contest.runners,
    ratios: {},
    targets: [
      ...contest.runners.flatMap(({ name, figures }) => {
        const most = ({ key }: Metric, limit: number) =>
          atMost(`${key} ${name}`, figures[key]?.[0] ?? NaN, limit);
        const packets = figures[PACKETS.key]?.[0] ?? NaN;
        return [
          ...quick ? [] : [atLeast(`${PACKETS.key} ${name}`, packets, ENOUGH_PACKETS / 1e6)],
          most(GROWTH, 5),
          most(HEAP, 1),
          most(UNACCOUNTED, 0),
        ];
      }),
      ...wrong.flat(),
    ],
    missing: contest.missing,
    notes: [
      `All at once, ${cycles} cycles after ${warmUp} as warm-up: ${seconds} s each of four TCP streams both ways, of ${DATAGRAM_BYTES}-byte`,
      "datagrams, as many as iperf3 can send, of one TCP stream, and of datagrams the other way. packets: read by the",
      "tunnels after the warm-up; dropped: by the kernel's queue before them, from the start on (millions).",
      `resident: the median of the last ${
        window / samples
      } s of the warm-up; highest, growth: of the highest such median behind it.`,
      "of the pool: how much of the packets' memory is resident in the end. heap: what is left of it after a",
      "collection, between the warm-up and the end. full ones: mark-compacts; ms: how long threads stood for both.",
      "unaccounted: where the tunnel's counters do not add up at rest or closed, differ from the kernel's, or slots are",
      "not given back. Resident memory from the start to the end:",
      ...Object.values(plots),
      ...contest.about,
    ],
  };
}

/** Has traffic pass and notes the figures; returns a plot of the memory, and what was compared. */
async function soak(
  runner: Runner,
  { seconds, warmUp, cycles, samples: perSecond, window }: typeof FULL,
  signal: AbortSignal,
): Promise<{ plot: string; comparisons: readonly Comparison[] }> {
  const { crossing } = runner;
  const samples: number[] = [];
  const sampling = setInterval(() => samples.push(crossing.residentMemory()), 1000 / perSecond);
  try {
    let warm = 0;
    let first: Look | undefined;
    for (let cycle = 0; cycle < warmUp + cycles; cycle++) {
      if (cycle === warmUp) {
        warm = samples.length;
        first = await look(runner, signal);
      }
      for (const flags of CYCLE) await crossing.iperf(...flags, "-t", String(seconds));
      const memory = samples.at(-1)! / MEBIBYTE;
      say(`${runner.name}: cycle ${cycle + 1} of ${warmUp + cycles}: ${memory.toFixed(1)} MiB`);
    }
    clearInterval(sampling);
    const last = await look(runner, signal);
    const { address, length } = last.told.pool;
    const pool = crossing.residentMemory({ address, length });
    const closed: Told = JSON.parse(await crossing.heap!.ask("SIGINT", TOLD));
    const comparisons = [...compare(last.told, closed, runner.name === Name.PlainBare)];
    const resident = summarize(samples.slice(Math.max(0, warm - window), warm)).median;
    const highest = Math.max(...windows(samples.slice(warm), window));
    runner.note({
      [MEMORY.key]: resident / MEBIBYTE,
      [HIGHEST.key]: highest / MEBIBYTE,
      [GROWTH.key]: (highest / resident - 1) * 100,
      [POOL.key]: pool / MEBIBYTE,
      [UNACCOUNTED.key]: comparisons.reduce((sum, comparison) => sum + differ(comparison), 0),
      ...garbage(first!, last),
    });
    return { plot: plot(samples), comparisons };
  } finally {
    clearInterval(sampling);
  }
}

async function look({ crossing }: Runner, signal: AbortSignal): Promise<Look> {
  await delay(SETTLE, signal);
  const heap = crossing.heap!;
  // First, so that what V8 has to say of the traffic is through: none of it is cut in two.
  const before = await heap.look();
  const told: Told = JSON.parse(await heap.ask("SIGUSR1", TOLD));
  return { told, before, after: await heap.look() };
}

/** Figures of what V8 has done between two looks, without the collections that they asked for. */
function garbage(first: Look, last: Look): Record<string, number> {
  const packets = packetsIn(last.told) - packetsIn(first.told);
  const [from, to] = [first.after, last.before];
  const perMillion = (count: number) => count / packets * 1e6;
  const scavenges = to.scavenges - from.scavenges;
  return {
    [PACKETS.key]: packets / 1e6,
    [DROPPED.key]: droppedBefore(last.told) / 1e6,
    [HEAP.key]: (last.told.heapUsed - first.told.heapUsed) / packets,
    [SCAVENGES.key]: perMillion(scavenges),
    [FULL_COLLECTIONS.key]: perMillion(to.collections - from.collections - scavenges),
    [PAUSES.key]: perMillion(to.paused - from.paused),
  };
}

function packetsIn({ tunnels }: Told): number {
  return tunnels.reduce((sum, { stats }) => sum + stats.outbound.packetsIn + stats.inbound.packetsIn, 0);
}

function droppedBefore({ tunnels }: Told): number {
  const devices = tunnels.flatMap(({ near, far }) => [near, far]);
  return devices.reduce((sum, device) => sum + (device?.txDropped ?? 0), 0);
}

/** All counts of the same, at rest and when all is closed. */
function* compare({ tunnels }: Told, closed: Told, onePacketAWrite: boolean): Generator<Comparison> {
  const grouped = !onePacketAWrite;
  for (const [i, { stats, near, far }] of tunnels.entries()) {
    const name = DEVICES[i]!;
    yield { what: `in and out of the tunnel of ${name}`, ...balance(stats) };
    yield { what: `in and out of the tunnel of ${name}, closed`, ...balance(closed.tunnels[i]!.stats) };
    yield* reads(name, stats.outbound, near!);
    yield* writes(name, stats.inbound, near!, grouped);
    if (far !== undefined) {
      yield* reads(DEVICES[1], stats.inbound, far);
      yield* writes(DEVICES[1], stats.outbound, far, grouped);
      continue;
    }
    const other = tunnels[1 - i]!.stats;
    const datagrams = { ours: stats.outbound.packetsOut, theirs: other.inbound.packetsIn };
    yield { what: `datagrams from the tunnel of ${name}`, ...datagrams };
  }
  yield { what: "slots taken, closed", ours: closed.pool.taken, theirs: 0 };
}

function balance({ outbound, inbound, created, dropped, queued }: TunnelStats): Omit<Comparison, "what"> {
  const lost = Object.values(dropped).reduce((sum, count) => sum + count, 0);
  return {
    ours: outbound.packetsIn + inbound.packetsIn + created,
    theirs: outbound.packetsOut + inbound.packetsOut + lost + queued,
  };
}

function* reads(name: string, flow: FlowStats, kernel: DeviceStatistics): Generator<Comparison> {
  yield { what: `packets read from ${name}`, ours: flow.packetsIn, theirs: kernel.txPackets };
  yield { what: `bytes read from ${name}`, ours: flow.bytesIn, theirs: kernel.txBytes };
}

function* writes(
  name: string,
  flow: FlowStats,
  kernel: DeviceStatistics,
  grouped: boolean,
): Generator<Comparison> {
  yield { what: `packets written to ${name}`, ours: flow.packetsOut, theirs: kernel.rxPackets, grouped };
  yield { what: `bytes written to ${name}`, ours: flow.bytesOut, theirs: kernel.rxBytes, grouped };
}

/** By how much two counts differ that should not. */
function differ({ ours, theirs, grouped = false }: Comparison): number {
  return grouped ? Math.max(0, theirs - ours) : Math.abs(theirs - ours);
}

function toTarget({ what, ours, theirs, grouped = false }: Comparison, contender: string): Target {
  return (grouped ? atLeast : equals)(`${what} ${contender}`, ours, theirs);
}

/** The medians of so many samples each. */
function windows(samples: readonly number[], length: number): number[] {
  return Array.from(
    { length: Math.floor(samples.length / length) },
    (_, i) => summarize(samples.slice(i * length, (i + 1) * length)).median,
  );
}

/** From the lowest to the highest, so that growth is seen. */
function plot(samples: readonly number[]): string {
  const { low, high } = summarize(samples);
  const bars = windows(samples, Math.max(1, Math.ceil(samples.length / PLOT)));
  const bar = (value: number) => BARS[Math.round((value - low) / (high - low || 1) * (BARS.length - 1))];
  return `${bars.map(bar).join("")} ${(low / MEBIBYTE).toFixed(1)} to ${(high / MEBIBYTE).toFixed(1)} MiB`;
}
