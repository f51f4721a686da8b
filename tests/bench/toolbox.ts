/** `toolbox`: what each stage of the toolbox costs a packet, and what a look-up in its tables costs. */

import type { ToolboxFigures } from "./_toolbox_process.ts";
import { parts } from "./_toolbox_parts.ts";
import { summarize } from "./measure.ts";
import { runPure } from "./pure_process.ts";
import { atMost, type Metric, type Report } from "./report.ts";

// Implementation
const PROCESS = new URL("_toolbox_process.ts", import.meta.url);
const FULL = { rounds: 15, packets: 1_000_000, heapPackets: 10_000_000 };
const QUICK = { rounds: 5, packets: 300_000, heapPackets: 2_000_000 };
const METRICS: readonly Metric[] = [
  { key: "added_ns", title: "ns/packet", digits: 0 },
  { key: "heap_bytes_per_packet", title: "heap bytes/packet", digits: 3 },
];

/** Runs the bench, in a process without permissions. */
export async function benchToolbox(quick: boolean, signal: AbortSignal): Promise<Report> {
  const { rounds, packets, heapPackets } = quick ? QUICK : FULL;
  const { cost, heap } = await runPure<ToolboxFigures>(PROCESS, [rounds, packets, heapPackets], signal);
  const most = Math.max(...Object.values(heap));
  return {
    bench: "toolbox",
    metrics: METRICS,
    contenders: Object.entries(cost).map(([name, added]) => ({
      name,
      figures: { added_ns: added, heap_bytes_per_packet: [heap[name]!] },
    })),
    ratios: {},
    targets: [
      ...parts().flatMap(({ name, limit }) =>
        limit === undefined ? [] : [atMost(`added_ns ${name}`, summarize(cost[name]!).median, limit)]
      ),
      atMost("heap_bytes_per_packet, the most of all", most, 1),
    ],
    missing: [],
    notes: [
      "Each stage by itself, called as a pipeline calls it: 32 packets of 92 bytes outbound, then 32 answers, of 1000",
      "flows in random order. ns/packet: the process's processor time, without what writing the packets' bytes anew",
      `costs in the same round; of a table, of a look-up. heap: over ${heapPackets / 1e6} million packets.`,
    ],
  };
}
