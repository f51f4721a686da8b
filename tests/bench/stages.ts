/** `stages`: what a handler, a chain of stages, and each surface add to the cost of a packet. */

import type { StagesFigures } from "./_stages_process.ts";
import { summarize } from "./measure.ts";
import { runPure } from "./pure_process.ts";
import { atMost, type Contender, type Metric, type Report } from "./report.ts";

// Implementation
const PROCESS = new URL("_stages_process.ts", import.meta.url);
const FULL = { rounds: 15, packets: 1_000_000 };
const QUICK = { rounds: 5, packets: 1_000_000 };
/** What is subtracted from each variant. */
const BASES: Record<string, string> = {
  "handler": "bare",
  "one stage": "bare",
  "VPN end": "one stage",
  "three stages": "bare",
  "three handlers": "bare",
  "for await": "run",
  "streams": "run",
};

const METRICS: readonly Metric[] = [
  { key: "cost_ns", title: "ns/packet", digits: 0 },
  { key: "added_ns", title: "added ns/packet", digits: 0 },
  { key: "heap_bytes_per_packet", title: "heap bytes/packet", digits: 2 },
];

/** Runs the bench, in a process without permissions. */
export async function benchStages(quick: boolean, signal: AbortSignal): Promise<Report> {
  const { rounds, packets } = quick ? QUICK : FULL;
  const { cost, heapBytesPerPacket } = await runPure<StagesFigures>(PROCESS, [rounds, packets], signal);
  const contenders = Object.entries(cost).map(([name, costs]): Contender => {
    const base = BASES[name];
    const added = base === undefined ? undefined : costs.map((figure, round) => figure - cost[base]![round]!);
    return {
      name,
      figures: {
        cost_ns: costs,
        ...(added === undefined ? {} : { added_ns: added }),
        ...(name === "three handlers" ? { heap_bytes_per_packet: [heapBytesPerPacket] } : {}),
      },
    };
  });
  const added = (name: string) => {
    const figures = contenders.find((contender) => contender.name === name)?.figures.added_ns ?? [];
    return summarize(figures).median;
  };
  return {
    bench: "stages",
    metrics: METRICS,
    contenders,
    ratios: {
      "added three stages/handler": added("three stages") / added("handler"),
      "added three handlers/three stages": added("three handlers") / added("three stages"),
    },
    targets: [
      atMost("added_ns handler", added("handler"), 60),
      atMost("added_ns VPN end", added("VPN end"), 60),
      atMost("added_ns three stages", added("three stages"), 150),
      atMost("added_ns three handlers", added("three handlers"), 150),
      atMost("heap_bytes_per_packet", heapBytesPerPacket, 1),
    ],
    missing: [],
    notes: [
      "Packets of UDP go in circles through memory devices, 64 at a batch, by the public API; eight other kinds of",
      "stage have run in the process before. ns/packet: the process's processor time for one round of the circle,",
      "which is two tunnels. added: without what the bare tunnel costs in the same round; for the surfaces, which",
      "turn packets round, without what run() with a handler costs that does the same.",
      "handler: reads the UDP view and rewrites the TTL. three: a TTL, a port, and a DSCP are read and rewritten.",
      "VPN end: one stage as the protocol of a VPN end, beside the same stage in the tunnel.",
      "heap: 10 million packets through three handlers, run() with the first one, and a VPN end.",
    ],
  };
}
