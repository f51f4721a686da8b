/**
 * `relay`: between two TUN devices, Warren against a C loop and socat.
 *
 * Every contender works in a namespace of its own ({@linkcode Crossing}), from the beginning to the end. They take
 * turns at the traffic, in each round in another order; while one has it, the others are idle.
 */

import { Crossing, DEVICES, type Progress, type RelayProgram } from "./crossing.ts";
import { ratio, summarize } from "./measure.ts";
import { buildPeer } from "./peers.ts";
import { atLeast, atMost, type Contender, type Metric, type Report, say } from "./report.ts";
import { delay } from "./wait.ts";

// Implementation
/** Milliseconds of traffic before what is measured; a part of it passes before iperf3 is connected. */
const LEAD_IN = 250;
/** Milliseconds of traffic behind it. */
const LEAD_OUT = 150;
const DATAGRAM_BYTES = 64;
const DATAGRAMS_PER_SECOND = 20_000;
const FAST_PING_SECONDS = 0.01;
const SLOW_PING_SECONDS = 1;
const BARE = "warren bare";
const REWRITE = "warren rewrite";
const C = "c";
const SOCAT = "socat";

interface Size {
  readonly rounds: number;
  /** How long each kind of traffic lasts; iperf3 takes whole seconds. */
  readonly seconds: number;
  /** Pings at 10 ms in each round. */
  readonly fastPings: number;
  /** Pings at 1 s after all rounds. */
  readonly slowPings: number;
}

const FULL: Size = { rounds: 15, seconds: 1, fastPings: 60, slowPings: 15 };
const QUICK: Size = { rounds: 3, seconds: 1, fastPings: 40, slowPings: 4 };

const METRICS: readonly Metric[] = [
  { key: "throughput_gbit_per_s", title: "TCP Gbit/s", digits: 2 },
  { key: "cpu_per_packet_ns", title: "TCP ns/packet", digits: 0 },
  { key: "cpu_per_small_packet_ns", title: "UDP ns/packet", digits: 0 },
  { key: "small_lost_percent", title: "UDP lost %", digits: 2 },
  { key: "ping10ms_us", title: "ping 10 ms, us", digits: 0 },
  { key: "ping1s_us", title: "ping 1 s, us", digits: 0 },
];

/** The ratios, by the metric that each is made of. */
const RATIOS = {
  throughput: "throughput_gbit_per_s",
  cpu_per_packet: "cpu_per_packet_ns",
  cpu_per_small_packet: "cpu_per_small_packet_ns",
  ping10ms: "ping10ms_us",
  ping1s: "ping1s_us",
} as const;

const CONTENDERS: readonly { name: string; start(): RelayProgram | Promise<RelayProgram> }[] = [
  { name: BARE, start: () => warren("../../scripts/relay.ts") },
  { name: REWRITE, start: () => warren("peers/relay_rewrite.ts") },
  { name: C, start: async () => ({ program: await buildPeer("relay"), args: DEVICES }) },
  { name: "c offload", start: async () => ({ program: await buildPeer("relay"), args: ["-o", ...DEVICES] }) },
  {
    name: SOCAT,
    start: () => ({
      program: "socat",
      args: ["-b", "65536", ...DEVICES.map((device) => `TUN,tun-name=${device},iff-no-pi`)],
    }),
  },
];

/** What is used of iperf3's report. */
interface IperfReport {
  readonly end: {
    readonly sum_received?: { readonly bits_per_second: number };
    readonly sum?: { readonly lost_percent: number };
  };
}

/**
 * Runs the bench.
 *
 * @throws {Deno.errors.PermissionDenied} when this is not root.
 */
export async function benchRelay(quick: boolean, signal: AbortSignal): Promise<Report> {
  if (Deno.uid() !== 0) {
    throw new Deno.errors.PermissionDenied("Cannot bench relay: it makes network namespaces: run as root");
  }
  const { rounds, seconds, fastPings, slowPings } = quick ? QUICK : FULL;
  const missing: string[] = [];
  await using stack = new AsyncDisposableStack();
  const runners: Runner[] = [];
  for (const { name, start } of CONTENDERS) {
    try {
      runners.push(new Runner(name, stack.use(await Crossing.open(await start(), signal)), signal));
    } catch (error) {
      signal.throwIfAborted();
      missing.push(`${name}: ${(error as Error).message}`);
    }
  }

  for (const runner of runners) {
    say(`${runner.name}: warming up`);
    await runner.warmUp();
  }
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < runners.length; turn++) {
      const runner = runners[(round + turn) % runners.length]!;
      await runner.measure(seconds, fastPings);
      say(`round ${round + 1} of ${rounds}: ${runner.name}: ${runner.latest}`);
    }
  }
  say(`${slowPings} pings at ${SLOW_PING_SECONDS} s`);
  // All at once, evenly apart: whoever gets one has been idle for long.
  const apart = SLOW_PING_SECONDS * 1000 / runners.length;
  await Promise.all(runners.map((runner, index) => runner.pingSlowly(slowPings, index * apart)));
  return judge(runners, missing);
}

/** A contender in its crossing. */
class Runner implements Contender {
  readonly name: string;
  readonly figures: Record<string, number[]> = Object.fromEntries(METRICS.map(({ key }) => [key, []]));
  readonly #crossing: Crossing;
  readonly #signal: AbortSignal;

  constructor(name: string, crossing: Crossing, signal: AbortSignal) {
    this.name = name;
    this.#crossing = crossing;
    this.#signal = signal;
  }

  /** The last round's figures. */
  get latest(): string {
    return METRICS.filter(({ key }) => this.figures[key]!.length > 0)
      .map(({ key, title, digits }) => `${title} ${this.figures[key]!.at(-1)!.toFixed(digits)}`).join("; ");
  }

  async warmUp(): Promise<void> {
    await this.#stream(1);
  }

  /** One round: a stream of TCP, datagrams, pings. */
  async measure(seconds: number, pings: number): Promise<void> {
    const { figures } = this;
    const [tcp, tcpCost] = await Promise.all([this.#stream(seconds), this.#costPerPacket(seconds)]);
    figures.throughput_gbit_per_s!.push((tcp.end.sum_received?.bits_per_second ?? NaN) / 1e9);
    figures.cpu_per_packet_ns!.push(tcpCost);
    const [udp, udpCost] = await Promise.all([this.#flood(seconds), this.#costPerPacket(seconds)]);
    figures.small_lost_percent!.push(udp.end.sum?.lost_percent ?? NaN);
    figures.cpu_per_small_packet_ns!.push(udpCost);
    figures.ping10ms_us!.push(summarize(await this.#crossing.ping(pings, FAST_PING_SECONDS)).median);
  }

  async pingSlowly(count: number, wait: number): Promise<void> {
    await delay(wait, this.#signal);
    this.figures.ping1s_us = await this.#crossing.ping(count, SLOW_PING_SECONDS);
  }

  #stream(seconds: number): Promise<IperfReport> {
    return this.#crossing.iperf("-t", String(seconds));
  }

  /** Datagrams at a rate that every relay can take. */
  #flood(seconds: number): Promise<IperfReport> {
    const bitsPerSecond = DATAGRAMS_PER_SECOND * DATAGRAM_BYTES * 8;
    return this.#crossing.iperf(
      "-u",
      ...["-l", String(DATAGRAM_BYTES)],
      ...["-b", String(bitsPerSecond)],
      ...["-t", String(seconds)],
    );
  }

  /** The relay's processor time for a packet, within traffic of so many seconds (nanoseconds). */
  async #costPerPacket(seconds: number): Promise<number> {
    await delay(LEAD_IN, this.#signal);
    const before = this.#crossing.progress();
    await delay(seconds * 1000 - LEAD_IN - LEAD_OUT, this.#signal);
    return costPerPacket(before, this.#crossing.progress());
  }
}

function warren(script: string): RelayProgram {
  const path = new URL(script, import.meta.url).pathname;
  const [device, far] = DEVICES;
  const flags = ["--name", device, "--far", `tun:${far}`, "--quiet"];
  return { program: Deno.execPath(), args: ["run", "--quiet", "--no-prompt", "--allow-ffi", path, ...flags] };
}

function costPerPacket(before: Progress, after: Progress): number {
  return (after.processor - before.processor) / (after.packets - before.packets);
}

function judge(runners: readonly Runner[], missing: readonly string[]): Report {
  const ratios: Record<string, number> = {};
  const compare = (name: string, peer: string, metrics = Object.keys(RATIOS) as (keyof typeof RATIOS)[]) => {
    const one = runners.find((runner) => runner.name === name);
    const other = runners.find((runner) => runner.name === peer);
    if (one === undefined || other === undefined) return;
    for (const metric of metrics) {
      const key = RATIOS[metric];
      ratios[`${metric} ${name}/${peer}`] = ratio(one.figures[key]!, other.figures[key]!);
    }
  };
  compare(BARE, C);
  compare(BARE, SOCAT);
  compare(REWRITE, C);
  compare(REWRITE, BARE, ["throughput", "cpu_per_packet", "cpu_per_small_packet"]);
  const most = (name: string, limit: number) => atMost(name, ratios[name] ?? NaN, limit);
  const least = (name: string, limit: number) => atLeast(name, ratios[name] ?? NaN, limit);
  return {
    bench: "relay",
    metrics: METRICS,
    contenders: runners,
    ratios,
    targets: [
      most(`cpu_per_packet ${BARE}/${C}`, 1.5),
      most(`cpu_per_packet ${BARE}/${SOCAT}`, 1),
      most(`ping10ms ${BARE}/${C}`, 2),
      most(`ping1s ${BARE}/${C}`, 3.5),
      least(`throughput ${REWRITE}/${BARE}`, 0.9),
      most(`cpu_per_packet ${REWRITE}/${BARE}`, 1.1),
    ],
    missing,
    notes: [
      "TCP: one stream of iperf3, MTU 1500, no offload.",
      `UDP: ${DATAGRAMS_PER_SECOND} datagrams of ${DATAGRAM_BYTES} bytes a second, by iperf3.`,
      "ns/packet: processor time of the relay's process, user and kernel, while the traffic lasts, divided by the",
      "packets that the kernel's device statistics say it delivered.",
      "ping: a round trip, which passes the relay twice. warren bare is scripts/relay.ts.",
    ],
  };
}
