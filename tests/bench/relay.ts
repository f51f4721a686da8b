/**
 * `relay`: between two TUN devices, Warren against a C loop and socat.
 *
 * Every contender works in a network namespace of its own ({@linkcode Crossing}), from the beginning to the end;
 * they take turns at the traffic, in each round in another order. While one has it, the others are idle.
 */

import { Crossing, DEVICES, type Progress, type RelayProgram } from "./crossing.ts";
import { ratio } from "./measure.ts";
import { buildPeer } from "./peers.ts";
import { atLeast, atMost, type Contender, type Metric, type Report } from "./report.ts";
import { delay } from "./wait.ts";

// Implementation
/** How long the traffic runs before and after what is measured (milliseconds). */
const EDGE = 250;
const WARM_UP_SECONDS = 1;
const DATAGRAM_BYTES = 64;
const DATAGRAMS_PER_SECOND = 40_000;
const FAST_PING_SECONDS = 0.01;
const SLOW_PING_SECONDS = 1;
const BARE = "warren bare";
const REWRITE = "warren rewrite";

interface Size {
  readonly rounds: number;
  /** Of each of the two kinds of traffic. */
  readonly seconds: number;
  readonly fastPings: number;
  readonly slowPings: number;
}

const FULL: Size = { rounds: 7, seconds: 3, fastPings: 300, slowPings: 15 };
const QUICK: Size = { rounds: 3, seconds: 1, fastPings: 100, slowPings: 5 };

const METRICS: readonly Metric[] = [
  { key: "tcp_gbit_per_s", title: "TCP Gbit/s", digits: 2 },
  { key: "tcp_cpu_ns_per_packet", title: "TCP ns/packet", digits: 0 },
  { key: "udp_cpu_ns_per_packet", title: "UDP ns/packet", digits: 0 },
  { key: "udp_lost_percent", title: "UDP lost %", digits: 2 },
  { key: "ping_10ms_us", title: "ping 10 ms, us", digits: 0 },
  { key: "ping_1s_us", title: "ping 1 s, us", digits: 0 },
];

/** What is used of iperf3's report. */
interface IperfReport {
  end: {
    sum_received?: { bits_per_second: number };
    sum?: { lost_percent: number };
  };
}

/** Runs the bench. */
export async function benchRelay(quick: boolean, signal: AbortSignal): Promise<Report> {
  if (Deno.uid() !== 0) {
    throw new Deno.errors.PermissionDenied("Cannot bench relay: it makes network namespaces: run as root");
  }
  const size = quick ? QUICK : FULL;
  const missing: string[] = [];
  await using stack = new AsyncDisposableStack();
  const crossings: Crossing[] = [];
  for (const open of PROGRAMS) {
    try {
      crossings.push(stack.use(await Crossing.open(await open(), signal)));
    } catch (error) {
      signal.throwIfAborted();
      missing.push(`${NAMES[PROGRAMS.indexOf(open)]}: ${(error as Error).message}`);
    }
  }
  const contenders = crossings.map(({ name }): Contender => ({
    name,
    figures: Object.fromEntries(METRICS.map(({ key }) => [key, []])),
  }));

  for (const crossing of crossings) {
    say(`${crossing.name}: warming up`);
    await crossing.iperf("-t", String(WARM_UP_SECONDS));
    await flood(crossing, WARM_UP_SECONDS);
  }
  for (let round = 0; round < size.rounds; round++) {
    for (let turn = 0; turn < crossings.length; turn++) {
      const index = (round + turn) % crossings.length;
      await measure(crossings[index]!, contenders[index]!, size.seconds, signal);
      say(`round ${round + 1} of ${size.rounds}: ${progressOf(contenders[index]!)}`);
    }
  }
  for (const [index, crossing] of crossings.entries()) {
    contenders[index]!.figures.ping_10ms_us = await crossing.ping(size.fastPings, FAST_PING_SECONDS);
  }
  say(`pings at 1 s: ${size.slowPings} s`);
  // All at once, a part of a second apart: a relay is idle again long before the next one is asked.
  await Promise.all(crossings.map(async (crossing, index) => {
    await delay(index * SLOW_PING_SECONDS * 1000 / crossings.length, signal);
    contenders[index]!.figures.ping_1s_us = await crossing.ping(size.slowPings, SLOW_PING_SECONDS);
  }));
  return judge(contenders, missing, size);
}

function deno(script: string): string[] {
  return ["run", "--quiet", "--no-prompt", "--allow-ffi", new URL(script, import.meta.url).pathname, "--quiet"];
}

const NAMES = [BARE, REWRITE, "c", "socat"] as const;

const PROGRAMS: readonly (() => RelayProgram | Promise<RelayProgram>)[] = [
  () => ({ name: BARE, program: Deno.execPath(), args: deno("peers/relay_bare.ts") }),
  () => ({ name: REWRITE, program: Deno.execPath(), args: deno("peers/relay_rewrite.ts") }),
  async () => ({ name: "c", program: await buildPeer("relay"), args: DEVICES }),
  () => ({
    name: "socat",
    program: "socat",
    args: ["-b", "65536", ...DEVICES.map((device) => `TUN,tun-name=${device},iff-no-pi`)],
  }),
];

/** One round of one contender: a stream of TCP, then datagrams. */
async function measure(crossing: Crossing, { figures }: Contender, seconds: number, signal: AbortSignal): Promise<void> {
  const length = seconds + 2 * EDGE / 1000;
  const window = async (): Promise<number> => {
    await delay(EDGE, signal);
    const before = crossing.progress();
    await delay(seconds * 1000, signal);
    return perPacket(before, crossing.progress());
  };
  const [tcp, tcpCost] = await Promise.all([
    crossing.iperf<IperfReport>("-t", String(length)),
    window(),
  ]);
  figures.tcp_gbit_per_s!.push((tcp.end.sum_received?.bits_per_second ?? NaN) / 1e9);
  figures.tcp_cpu_ns_per_packet!.push(tcpCost);
  const [udp, udpCost] = await Promise.all([flood(crossing, length), window()]);
  figures.udp_lost_percent!.push(udp.end.sum?.lost_percent ?? NaN);
  figures.udp_cpu_ns_per_packet!.push(udpCost);
}

/** Datagrams at a rate that every relay can take. */
function flood(crossing: Crossing, seconds: number): Promise<IperfReport> {
  const rate = DATAGRAMS_PER_SECOND * DATAGRAM_BYTES * 8;
  return crossing.iperf("-u", "-l", String(DATAGRAM_BYTES), "-b", String(rate), "-t", String(seconds));
}

/** The relay's processor time for each packet that it moved. */
function perPacket(before: Progress, after: Progress): number {
  return (after.processor - before.processor) / (after.packets - before.packets);
}

function judge(contenders: Contender[], missing: string[], size: Size): Report {
  const figures = (name: string, key: string) =>
    contenders.find((contender) => contender.name === name)?.figures[key] ?? [];
  const compare = (key: string, name: string, peer: string) => ratio(figures(name, key), figures(peer, key));
  const medians = (key: string, name: string, peer: string) => median(figures(name, key)) / median(figures(peer, key));
  const ratios: Record<string, number> = {};
  for (const peer of ["c", "socat"]) {
    for (const name of [BARE, REWRITE]) {
      ratios[`throughput ${name}/${peer}`] = compare("tcp_gbit_per_s", name, peer);
      ratios[`cpu_per_packet ${name}/${peer}`] = compare("tcp_cpu_ns_per_packet", name, peer);
      ratios[`cpu_per_small_packet ${name}/${peer}`] = compare("udp_cpu_ns_per_packet", name, peer);
      ratios[`ping10ms ${name}/${peer}`] = medians("ping_10ms_us", name, peer);
      ratios[`ping1s ${name}/${peer}`] = medians("ping_1s_us", name, peer);
    }
  }
  ratios[`throughput ${REWRITE}/${BARE}`] = compare("tcp_gbit_per_s", REWRITE, BARE);
  ratios[`cpu_per_packet ${REWRITE}/${BARE}`] = compare("tcp_cpu_ns_per_packet", REWRITE, BARE);
  const most = (name: string, limit: number) => atMost(name, ratios[name]!, limit);
  const targets = [];
  return {
    bench: "relay",
    metrics: METRICS,
    contenders,
    ratios,
    targets: [
      most(`cpu_per_packet ${BARE}/c`, 1.5),
      most(`cpu_per_packet ${BARE}/socat`, 1),
      most(`ping10ms ${BARE}/c`, 2),
      most(`ping1s ${BARE}/c`, 3.5),
      atLeast(`throughput ${REWRITE}/${BARE}`, ratios[`throughput ${REWRITE}/${BARE}`]!, 0.9),
      most(`cpu_per_packet ${REWRITE}/${BARE}`, 1.1),
    ],
    missing,
    notes: [],
  };
}
