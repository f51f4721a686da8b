/** `latency`: pings through a relay between two TUN devices, Warren beside its peers. */

import { entrants, Name } from "./contenders.ts";
import { Contest } from "./contest.ts";
import { percentile, summarize } from "./measure.ts";
import { atMost, type Metric, ratiosOf, type Report, say } from "./report.ts";
import { delay } from "./wait.ts";

// Implementation
/** Pings at 10 ms in a turn; pings at 1 s after all turns. */
const FULL = { rounds: 7, fastPings: 300, slowPings: 20 };
const QUICK = { rounds: 2, fastPings: 120, slowPings: 5 };
const FAST_SECONDS = 0.01;
const SLOW_SECONDS = 1;
const WARM_UP_PINGS = 100;

const { Bare, Rewrite, BusyPoll, C, COffload, DenoLoop, Socat, WireguardGo, TunRs, Veth } = Name;
const NAMES = [Bare, Rewrite, BusyPoll, C, COffload, DenoLoop, Socat, WireguardGo, TunRs, Veth];

const MEDIAN: Metric = { key: "ping10ms_us", title: "10 ms: median us", digits: 0 };
const TAIL: Metric = { key: "ping10ms_p99_us", title: "10 ms: 99 % us", digits: 0 };
const SLOW: Metric = { key: "ping1s_us", title: "1 s: median us", digits: 0 };
const SLOW_COST: Metric = { key: "ping1s_processor_percent", title: "processor %", digits: 2 };
const METRICS = [MEDIAN, TAIL, SLOW, SLOW_COST];

/** Runs the bench. */
export async function benchLatency(quick: boolean, signal: AbortSignal): Promise<Report> {
  const { rounds, fastPings, slowPings } = quick ? QUICK : FULL;
  await using contest = await Contest.open(entrants(...NAMES), { slow: !quick }, signal);
  await contest.atOnce(async ({ crossing }) => {
    await crossing.ping(WARM_UP_PINGS, FAST_SECONDS);
  });
  await contest.takeTurns(rounds, METRICS, async (runner) => {
    const times = await runner.crossing.ping(fastPings, FAST_SECONDS);
    runner.note({ [MEDIAN.key]: summarize(times).median, [TAIL.key]: percentile(times, 0.99) });
  });
  say(`${slowPings} pings at ${SLOW_SECONDS} s`);
  // All at once, evenly apart: whoever gets one has been idle for long.
  const apart = SLOW_SECONDS * 1000 / contest.runners.length;
  await contest.atOnce(async (runner, index) => {
    await delay(index * apart, signal);
    const before = runner.crossing.progress();
    for (const time of await runner.crossing.ping(slowPings, SLOW_SECONDS)) runner.note({ [SLOW.key]: time });
    const after = runner.crossing.progress();
    if (before === undefined || after === undefined) return;
    const busy = (after.processor - before.processor) / 1e6 / (after.time - before.time);
    runner.note({ [SLOW_COST.key]: busy * 100 });
  });
  const ratios = ratiosOf(contest.runners, { ping10ms: MEDIAN, ping10ms_p99: TAIL, ping1s: SLOW }, [
    [Bare, C],
    [Rewrite, C],
    [Rewrite, DenoLoop],
    [Rewrite, WireguardGo],
    [Rewrite, TunRs],
    [BusyPoll, C],
    [C, Veth],
  ]);
  const most = (metric: string, contender: Name, peer: Name, limit: number) => {
    const name = `${metric} ${contender}/${peer}`;
    return atMost(name, ratios[name] ?? NaN, limit);
  };
  const slowCost = contest.runners.find(({ name }) => name === Rewrite)?.figures[SLOW_COST.key] ?? [];
  return {
    bench: "latency",
    metrics: METRICS,
    contenders: contest.runners,
    ratios,
    targets: [
      most("ping10ms", Rewrite, C, 1.4),
      most("ping10ms", Rewrite, TunRs, 1),
      most("ping10ms_p99", Rewrite, C, 1.5),
      most("ping1s", Rewrite, C, 1.6),
      most("ping10ms", BusyPoll, C, 1),
      atMost(`processor % of ${Rewrite} at one ping per second`, summarize(slowCost).median, 4),
    ],
    missing: contest.missing,
    notes: [
      "A ping is a round trip, which passes the relay twice. At 10 ms, a turn gives a median and a 99th percentile.",
      "processor %: of one processor, while one ping per second comes.",
      "At 1 s, every ping counts, and each finds a relay that has been idle since the one before.",
      ...contest.about,
    ],
  };
}
