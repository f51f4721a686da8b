/** `scale`: a script whose handler is expensive, by two workers beside one. */

import { type Entrant, relayScript } from "./contenders.ts";
import { Contest } from "./contest.ts";
import { atLeast, type Metric, ratiosOf, type Report } from "./report.ts";

// Implementation
/** iperf3 takes whole seconds. */
const FULL = { rounds: 9, seconds: 4 };
const QUICK = { rounds: 3, seconds: 3 };
const WARM_UP_SECONDS = 2;
const STREAMS = 8;
const SCRIPT = "peers/relay_costly.ts";

const THROUGHPUT: Metric = { key: "throughput_mbit_per_s", title: "Mbit/s", digits: 0 };
const PROCESSORS: Metric = { key: "relay_processors", title: "processors", digits: 2 };
const PER_PACKET: Metric = { key: "cpu_per_packet_ns", title: "ns/packet", digits: 0 };
const METRICS = [THROUGHPUT, PROCESSORS, PER_PACKET];

const ONE = workers(1);
const TWO = workers(2);

/** Runs the bench. */
export async function benchScale(quick: boolean, signal: AbortSignal): Promise<Report> {
  const { rounds, seconds } = quick ? QUICK : FULL;
  await using contest = await Contest.open([ONE, TWO], {}, signal);
  const streams = ["-P", String(STREAMS)];
  await contest.atOnce(async ({ crossing }) => {
    await crossing.iperf(...streams, "-t", String(WARM_UP_SECONDS));
  });
  await contest.takeTurns(rounds, METRICS, async (runner) => {
    const traffic = runner.crossing.iperf(...streams, "-t", String(seconds));
    const [{ end }, cost] = await Promise.all([traffic, runner.cost(seconds)]);
    runner.note({
      [THROUGHPUT.key]: end.sum_received.bits_per_second / 1e6,
      [PROCESSORS.key]: cost?.processors,
      [PER_PACKET.key]: cost?.perPacket,
    });
  });
  const ratios = ratiosOf(contest.runners, { throughput: THROUGHPUT, cpu_per_packet: PER_PACKET }, [[
    TWO.name,
    ONE.name,
  ]]);
  const name = `throughput ${TWO.name}/${ONE.name}`;
  return {
    bench: "scale",
    metrics: METRICS,
    contenders: contest.runners,
    ratios,
    targets: [atLeast(name, ratios[name] ?? NaN, 1.6)],
    missing: contest.missing,
    notes: [
      `${STREAMS} streams of iperf3 for ${seconds} s a turn, MTU 1500, offload off. The script sums up every packet again`,
      "and again, so that the relay's processor time is what limits, not that of iperf3 and the kernel. These share the",
      "processors with the relay: on a machine with two, the second worker does not get what they take, and the ratio",
      "cannot reach 2. processors: how many the relay keeps busy; where one worker has less than 0.9, something else",
      "uses the machine, and the ratio says little.",
      ...contest.about,
    ],
  };
}

function workers(count: number): Entrant {
  const many = count === 1 ? [] : ["--workers", String(count)];
  const name = count === 1 ? "1 worker" : `${count} workers`;
  return relayScript(name, SCRIPT, false, [SCRIPT, ...many].join(" "), ...many);
}
