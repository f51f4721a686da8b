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

const { Bare, Rewrite, C, COffload, Socat, WireguardGo, TunRs, Veth } = Name;
const NAMES = [Bare, Rewrite, C, COffload, Socat, WireguardGo, TunRs, Veth];

const MEDIAN: Metric = { key: "ping10ms_us", title: "10 ms: median us", digits: 0 };
const TAIL: Metric = { key: "ping10ms_p99_us", title: "10 ms: 99 % us", digits: 0 };
const SLOW: Metric = { key: "ping1s_us", title: "1 s: median us", digits: 0 };
const METRICS = [MEDIAN, TAIL, SLOW];

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
    for (const time of await runner.crossing.ping(slowPings, SLOW_SECONDS)) runner.note({ [SLOW.key]: time });
  });
  const ratios = ratiosOf(contest.runners, { ping10ms: MEDIAN, ping10ms_p99: TAIL, ping1s: SLOW }, [
    [Name.Bare, Name.C],
    [Name.Rewrite, Name.C],
    [Name.Rewrite, Name.WireguardGo],
    [Name.Rewrite, Name.TunRs],
    [Name.C, Name.Veth],
  ]);
  const most = (metric: string, limit: number) => {
    const name = `${metric} ${Name.Rewrite}/${Name.C}`;
    return atMost(name, ratios[name] ?? NaN, limit);
  };
  return {
    bench: "latency",
    metrics: METRICS,
    contenders: contest.runners,
    ratios,
    targets: [most("ping10ms", 1.3), most("ping10ms_p99", 2), most("ping1s", 2)],
    missing: contest.missing,
    notes: [
      "A ping is a round trip, which passes the relay twice. At 10 ms, a turn gives a median and a 99th percentile.",
      "At 1 s, every ping counts, and each finds a relay that has been idle since the one before.",
      ...contest.about,
    ],
  };
}
