/** `tcp`: one stream of TCP through a relay between two TUN devices, Warren beside its peers. */

import type { IperfReport } from "../kit/traffic.ts";
import { entrants, Name } from "./contenders.ts";
import { Contest, type Runner } from "./contest.ts";
import { atLeast, type Metric, ratiosOf, type Report } from "./report.ts";

// Implementation
/** iperf3 takes whole seconds. */
const FULL = { rounds: 9, seconds: 2 };
const QUICK = { rounds: 3, seconds: 1 };
const WARM_UP_SECONDS = 3;
const NAMES = Object.values(Name).filter((name) => name !== Name.BusyPoll && name !== Name.DenoLoop);

const THROUGHPUT: Metric = { key: "throughput_gbit_per_s", title: "Gbit/s", digits: 2 };
const PER_KIBIBYTE: Metric = { key: "cpu_per_kib_ns", title: "ns/KiB", digits: 0 };
const PER_PACKET: Metric = { key: "cpu_per_packet_ns", title: "ns/packet", digits: 0 };
const METRICS = [THROUGHPUT, PER_KIBIBYTE, PER_PACKET];

/** Runs the bench. */
export async function benchTcp(quick: boolean, signal: AbortSignal): Promise<Report> {
  const { rounds, seconds } = quick ? QUICK : FULL;
  await using contest = await Contest.open(entrants(...NAMES), { slow: !quick }, signal);
  const stream = ({ crossing }: Runner, seconds: number): Promise<IperfReport> =>
    crossing.iperf("-t", String(seconds));
  await contest.atOnce(async (runner) => {
    await stream(runner, WARM_UP_SECONDS);
  });
  await contest.takeTurns(rounds, METRICS, async (runner) => {
    const [{ end }, cost] = await Promise.all([stream(runner, seconds), runner.cost(seconds)]);
    runner.note({
      [THROUGHPUT.key]: end.sum_received.bits_per_second / 1e9,
      [PER_KIBIBYTE.key]: cost?.perKibibyte,
      [PER_PACKET.key]: cost?.perPacket,
    });
  });
  const ratios = {
    ...ratiosOf(contest.runners, { throughput: THROUGHPUT, cpu_per_kib: PER_KIBIBYTE }, [
      [Name.Bare, Name.COffload],
      [Name.Rewrite, Name.COffload],
      [Name.Rewrite, Name.WireguardGo],
      [Name.Rewrite, Name.TunRs],
      [Name.Rewrite, Name.Veth],
      [Name.Rewrite, Name.Bare],
      [Name.Rewrite, Name.PlainRewrite],
      [Name.PlainBare, Name.C],
      [Name.PlainRewrite, Name.C],
      [Name.PlainRewrite, Name.Socat],
    ]),
    ...ratiosOf(contest.runners, { cpu_per_packet: PER_PACKET }, [[Name.PlainBare, Name.C], [
      Name.PlainRewrite,
      Name.C,
    ]]),
  };
  const least = (pair: string, limit: number) => {
    const name = `throughput ${pair}`;
    return atLeast(name, ratios[name] ?? NaN, limit);
  };
  return {
    bench: "tcp",
    metrics: METRICS,
    contenders: contest.runners,
    ratios,
    targets: [
      least(`${Name.Rewrite}/${Name.COffload}`, 1),
      least(`${Name.Rewrite}/${Name.WireguardGo}`, 1),
      least(`${Name.Rewrite}/${Name.TunRs}`, 1),
      least(`${Name.Rewrite}/${Name.Veth}`, 0.6),
      least(`${Name.PlainRewrite}/${Name.C}`, 1.4),
    ],
    missing: contest.missing,
    notes: [
      `One stream of iperf3 for ${seconds} s a turn, MTU 1500. The client and the server of iperf3 share the`,
      "processors with the relay. ns: processor time of the relay's process, user and kernel, while the stream",
      "lasts, divided by what the kernel's device statistics say it handed over, acknowledgements among it. A",
      "super-packet is one packet: ns/packet compares only those with offload off. 0.8 of veth would be a feat.",
      ...contest.about,
    ],
  };
}
