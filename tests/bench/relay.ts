/** `relay`: what a small packet costs a relay between two TUN devices, Warren beside its peers. */

import type { IperfReport } from "../kit/traffic.ts";
import { entrants, Name } from "./contenders.ts";
import { Contest, type Runner } from "./contest.ts";
import { atMost, type Metric, ratiosOf, type Report } from "./report.ts";

// Implementation
/**
 * iperf3 takes whole seconds. V8 compiles while a relay warms up: in the first seconds a packet costs half as much again.
 */
const FULL = { rounds: 7, seconds: 3, warmUp: 10 };
const QUICK = { rounds: 2, seconds: 1, warmUp: 5 };
const DATAGRAM_BYTES = 64;
/** A rate that every relay can take; what more iperf3 can send, no relay takes. */
const DATAGRAMS_PER_SECOND = 20_000;
const AS_MANY_AS_GO = 0;
const NAMES = [Name.Bare, Name.Rewrite, Name.C, Name.COffload, Name.Socat, Name.WireguardGo, Name.TunRs];

const COST: Metric = { key: "cpu_per_small_packet_ns", title: "ns/packet", digits: 0 };
const COST_RATIO = "cpu_per_small_packet";
const FULL_COST: Metric = { key: "cpu_per_small_packet_at_full_rate_ns", title: "at full rate", digits: 0 };
const FULL_COST_RATIO = "cpu_per_small_packet_at_full_rate";
const LOST: Metric = { key: "small_lost_percent", title: "lost %", digits: 2 };
const HEAP: Metric = { key: "heap_bytes_per_packet", title: "heap bytes/packet", digits: 1 };
const COLLECTIONS: Metric = {
  key: "collections_per_million_packets",
  title: "collections/million",
  digits: 1,
};
const METRICS = [COST, LOST, FULL_COST, HEAP, COLLECTIONS];

/** What has happened to a heap while so many packets passed. */
interface HeapTally {
  packets: number;
  allocated: number;
  collections: number;
}

/** Runs the bench. */
export async function benchRelay(quick: boolean, signal: AbortSignal): Promise<Report> {
  const { rounds, seconds, warmUp } = quick ? QUICK : FULL;
  await using contest = await Contest.open(entrants(...NAMES), { slow: !quick, watched: true }, signal);
  await contest.atOnce(async (runner) => {
    await flood(runner, warmUp, DATAGRAMS_PER_SECOND);
  });
  const counters = new Map<Runner, HeapTally>();
  await contest.takeTurns(rounds, METRICS, async (runner) => {
    const before = await tally(runner);
    const costOf = (perSecond: number) =>
      Promise.all([flood(runner, seconds, perSecond), runner.cost(seconds)]);
    const [{ end }, cost] = await costOf(DATAGRAMS_PER_SECOND);
    runner.note({ [COST.key]: cost?.perPacket, [LOST.key]: end.sum!.lost_percent });
    const [, fullCost] = await costOf(AS_MANY_AS_GO);
    runner.note({ [FULL_COST.key]: fullCost?.perPacket });
    const after = await tally(runner);
    if (before === undefined || after === undefined) return;
    const total = counters.get(runner) ?? { packets: 0, allocated: 0, collections: 0 };
    for (const key of ["packets", "allocated", "collections"] as const) {
      total[key] += after[key] - before[key];
    }
    counters.set(runner, total);
  });
  for (const [runner, { packets, allocated, collections }] of counters) {
    runner.note({ [HEAP.key]: allocated / packets, [COLLECTIONS.key]: collections / packets * 1e6 });
  }
  const ratios = ratiosOf(contest.runners, { [COST_RATIO]: COST, [FULL_COST_RATIO]: FULL_COST }, [
    [Name.Bare, Name.C],
    [Name.Bare, Name.Socat],
    [Name.Rewrite, Name.C],
    [Name.Rewrite, Name.Socat],
    [Name.Rewrite, Name.COffload],
    [Name.Rewrite, Name.WireguardGo],
    [Name.Rewrite, Name.TunRs],
    [Name.Rewrite, Name.Bare],
  ]);
  const most = (ratio: string, peer: string, limit: number) => {
    const name = `${ratio} ${Name.Rewrite}/${peer}`;
    return atMost(name, ratios[name] ?? NaN, limit);
  };
  const packets = Math.min(...Array.from(counters.values(), ({ packets }) => packets));
  return {
    bench: "relay",
    metrics: METRICS,
    contenders: contest.runners,
    ratios,
    targets: [COST_RATIO, FULL_COST_RATIO].flatMap((ratio) => [
      most(ratio, Name.C, 0.9),
      most(ratio, Name.Socat, 0.5),
    ]),
    missing: contest.missing,
    notes: [
      `UDP: ${DATAGRAMS_PER_SECOND} datagrams of ${DATAGRAM_BYTES} bytes a second for ${seconds} s a turn, by iperf3, which sends`,
      "those of a millisecond at once; at full rate: as many as it can send, most of which the kernel's queue drops.",
      "ns/packet: processor time of the relay's process, user and kernel, while the traffic lasts, divided by the",
      "packets that the kernel's device statistics say it handed over, one by one. Behind a relay that groups them, they",
      "arrive as super-packets; lost: what iperf3's server does not get.",
      `heap: what V8 allocates and how often it collects in all turns, over ${packets} packets, whatever for.`,
      ...contest.about,
    ],
  };
}

/** Sends datagrams through a relay. */
function flood({ crossing }: Runner, seconds: number, perSecond: number): Promise<IperfReport> {
  const bitsPerSecond = perSecond * DATAGRAM_BYTES * 8;
  const size = ["-l", String(DATAGRAM_BYTES)];
  return crossing.iperf("-u", ...size, "-b", String(bitsPerSecond), "-t", String(seconds));
}

/** The state of a heap that is watched. */
async function tally({ crossing }: Runner): Promise<HeapTally | undefined> {
  if (crossing.heap === undefined) return undefined;
  return { ...await crossing.heap.look(), packets: crossing.progress()!.packets };
}
