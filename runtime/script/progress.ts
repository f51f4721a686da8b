/** Messages of a running script on standard error: greeting, counters on a terminal, and summary. */

import { formatCidr, parseCidr, Prefix } from "../../lib/wire/address.ts";
import type { TunnelStats } from "../../lib/core/mod.ts";
import { stderr } from "./output.ts";
import type { Tunnel } from "../tunnel/tunnel.ts";
import type { CheckedTunnelOptions, TunnelOptions } from "../tunnel/tunnel_options.ts";
import type { WorkerPool } from "../workers/worker_pool.ts";

// Implementation
/** Interval between updates of the counters (milliseconds). */
const INTERVAL = 1000;
/** Time after which slow loading of the script is reported (milliseconds). */
const LOADING_TIMEOUT = 3000;
/** Width of a terminal of unknown size (columns). */
const COLUMNS = 80;
const ERASE_LINE = "\r\x1b[K";

/** Formats the options of a tunnel in one line, for `--dry-run`. */
export function describe({ given, workers }: CheckedTunnelOptions): string {
  const { device, name = "tun%d", mtu, far, linux } = given;
  return [
    `device ${device?.name ?? name}`,
    ...addresses(given).map((address) => `address ${address}`),
    ...[given.route ?? []].flat().map((route) =>
      `route ${typeof route === "string" ? route : Deno.inspect(route)}`
    ),
    ...(mtu === undefined ? [] : [`MTU ${mtu}`]),
    ...(linux?.txQueueLength === undefined ? [] : [`queue length ${linux.txQueueLength}`]),
    ...countWorkers(workers),
    ...(far === undefined ? [] : [`far end ${typeof far === "string" ? far : "opened by the script"}`]),
  ].join(", ");
}

/** Reports workers that take long to load the script; returns a function that stops this. */
export function reportLoading(pool: WorkerPool): () => void {
  const timer = setTimeout(() => {
    const workers = pool.loading;
    const subject = workers.length === 1 ? `Worker ${workers[0]} is` : `Workers ${workers.join(", ")} are`;
    console.error(`${subject} still loading the script. Press Ctrl-C to stop.`);
  }, LOADING_TIMEOUT);
  return () => clearTimeout(timer);
}

/** Prints that a tunnel is open, with its addresses, MTU and far end. */
export function greet(tunnel: Tunnel, { given, workers }: CheckedTunnelOptions): void {
  const { device, far } = tunnel;
  const own = given.device === undefined ? addresses(given) : [];
  const facts = [
    ...own,
    `MTU ${device.mtu}`,
    ...(far === undefined ? [] : [`to ${far.name}`]),
    ...countWorkers(workers),
  ];
  console.error(`${device.name} is open: ${facts.join(", ")}. Press Ctrl-C to stop.`);
  if (far?.mtu !== undefined && far.mtu < device.mtu) {
    const fate = far.payload === "any" ? "are dropped" : "are fragmented or answered with ICMP errors";
    console.error(
      `${far.name} carries packets up to ${far.mtu} bytes: longer ones ${fate}. To avoid them: --mtu ${far.mtu}`,
    );
  }
  const prefixes = own.map(parseCidr).filter(({ address, length }) => length < address.bytes.length * 8 - 1);
  if (prefixes.length === 0) return;
  const networks = prefixes.map((prefix) => formatCidr(new Prefix(prefix.network, prefix.length)));
  const [neighbour] = formatCidr(otherHost(prefixes[0]!)).split("/");
  console.error(`The script receives packets to ${networks.join(" and ")}. Try: ping ${neighbour}`);
}

/** Shows counters every second if standard error is a terminal; returns a function that stops this. */
export function showCounters(tunnels: readonly Tunnel[]): () => void {
  if (!Deno.stderr.isTerminal()) return () => {};
  const before = tunnels.map(({ stats }) => stats);
  const timer = setInterval(() => {
    const columns = tunnels.map((tunnel, i) => {
      const { stats } = tunnel;
      const text = `${tunnel.name}: ${formatRates(stats, before[i]!)}`;
      before[i] = stats;
      return text;
    });
    // The cursor returns to the start of the line, so that output of the script overwrites the counters.
    stderr().show(`${ERASE_LINE}${columns.join("   ").slice(0, terminalWidth() - 1)}\r`);
  }, INTERVAL);
  return () => {
    clearInterval(timer);
    stderr().show(ERASE_LINE);
  };
}

/** Prints the summary of a closed tunnel. */
export function summarize(tunnel: Tunnel): void {
  const neverRan = tunnel.hasRun ? "" : "it never ran; ";
  console.error(
    `${tunnel.name} is closed: ${neverRan}${formatSummary(tunnel.stats, tunnel.far !== undefined)}`,
  );
}

/** Formats counters and their growth over the last second. */
export function formatRates(now: TunnelStats, before: TunnelStats): string {
  const outbound = now.outbound.packetsIn;
  const inbound = now.inbound.packetsOut;
  return `outbound ${outbound} (${outbound - before.outbound.packetsIn}/s), ` +
    `inbound ${inbound} (${inbound - before.inbound.packetsOut}/s), dropped ${dropped(now)}`;
}

/** Formats the counters of a tunnel in one line. */
export function formatSummary(stats: TunnelStats, hasFarEnd: boolean): string {
  const { outbound, inbound, malformed } = stats;
  const reasons = Object.entries(stats.dropped).map(([reason, count]) => `${reason} ${count}`);
  return [
    `from this machine ${packets(outbound.packetsIn, outbound.bytesIn)}`,
    `to this machine ${packets(inbound.packetsOut, inbound.bytesOut)}`,
    ...(hasFarEnd
      ? [
        `to the far end ${packets(outbound.packetsOut, outbound.bytesOut)}`,
        `from the far end ${packets(inbound.packetsIn, inbound.bytesIn)}`,
      ]
      : []),
    `dropped ${dropped(stats)}${reasons.length === 0 ? "" : ` (${reasons.join(", ")})`}`,
    ...(malformed === 0 ? [] : [`malformed ${malformed}`]),
  ].join("; ");
}

function packets(count: number, bytes: number): string {
  return count === 0 ? "no packets" : `${count} packet${count === 1 ? "" : "s"} (${bytes} bytes)`;
}

function dropped(stats: TunnelStats): number {
  return Object.values(stats.dropped).reduce((sum, count) => sum + count, 0);
}

function countWorkers(count: number): string[] {
  return count === 1 ? [] : [`${count} workers`];
}

function addresses(options: TunnelOptions): string[] {
  return [options.address ?? []].flat();
}

/** Returns the first host address of a network, or the second if the first is that of this machine. */
function otherHost(own: Prefix): Prefix {
  const { family, bytes } = own.network;
  bytes[bytes.length - 1]! += 1;
  const isOwn = own.address.bytes.every((byte, i) => byte === bytes[i]);
  if (isOwn) bytes[bytes.length - 1]! += 1;
  return new Prefix({ family, bytes }, own.length);
}

function terminalWidth(): number {
  try {
    return Deno.consoleSize().columns || COLUMNS;
  } catch {
    // The terminal may be gone.
    return COLUMNS;
  }
}
