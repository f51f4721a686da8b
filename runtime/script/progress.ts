/** What a running script shows on standard error: a greeting, counters on a terminal, and a summary. */

import { formatCidr, parseCidr, Prefix } from "../../lib/wire/address.ts";
import type { TunnelStats } from "../../lib/core/mod.ts";
import { workerCount } from "../tunnel/open_tunnel.ts";
import { stderr } from "./output.ts";
import type { Tunnel, TunnelOptions } from "../tunnel/tunnel.ts";
import type { WorkerPool } from "../workers/worker_pool.ts";

// Implementation
/** How often the counters are shown (milliseconds). */
const INTERVAL = 1000;
/** The time after which a line says that the script is still being loaded (milliseconds). */
const LOADING = 3000;
/** The width of a terminal that does not tell its own. */
const COLUMNS = 80;
const ERASE_LINE = "\r\x1b[K";

/** A tunnel's options in a line: what `--dry-run` says. */
export function describe(options: TunnelOptions): string {
  const { device, name = "tun%d", mtu, far, linux } = options;
  return [
    `device ${device?.name ?? name}`,
    ...addresses(options).map((address) => `address ${address}`),
    ...[options.route ?? []].flat().map((route) =>
      `route ${typeof route === "string" ? route : Deno.inspect(route)}`
    ),
    ...(mtu === undefined ? [] : [`MTU ${mtu}`]),
    ...(linux?.txQueueLength === undefined ? [] : [`queue of ${linux.txQueueLength} packets`]),
    ...workers(options),
    ...(far === undefined ? [] : [`far end ${typeof far === "string" ? far : "of the script's own"}`]),
  ].join(", ");
}

/** Says so when other workers take long to load the script. Returns what ends it. */
export function tellLoading(crew: WorkerPool): () => void {
  const timer = setTimeout(() => {
    const workers = crew.loading;
    const [noun, verb] = workers.length === 1 ? ["Worker", "loads"] : ["Workers", "load"];
    console.error(`${noun} ${workers.join(", ")} still ${verb} the script. Ctrl-C ends it.`);
  }, LOADING);
  return () => clearTimeout(timer);
}

/** Says that a tunnel is open, and what comes to it. */
export function greet(tunnel: Tunnel, options: TunnelOptions): void {
  const { device, far } = tunnel;
  const own = options.device === undefined ? addresses(options) : [];
  const facts = [
    ...own,
    `MTU ${device.mtu}`,
    ...(far === undefined ? [] : [`to ${far.name}`]),
    ...workers(options),
  ];
  console.error(`${device.name} is open: ${facts.join(", ")}. Ctrl-C ends it.`);
  if (far?.mtu !== undefined && far.mtu < device.mtu) {
    const fate = far.payload === "any" ? "are dropped" : "are fragmented, or answered with ICMP errors";
    console.error(
      `${far.name} takes packets up to ${far.mtu} bytes: longer ones ${fate}. --mtu ${far.mtu} avoids them`,
    );
  }
  const prefixes = own.map(parseCidr).filter(({ address, length }) => length < address.bytes.length * 8 - 1);
  if (prefixes.length === 0) return;
  const networks = prefixes.map((prefix) => formatCidr(new Prefix(prefix.network, prefix.length)));
  const [neighbour] = formatCidr(otherHost(prefixes[0]!)).split("/");
  console.error(`Packets for ${networks.join(" and ")} come to it: try ping ${neighbour}`);
}

/** Shows counters once a second while standard error is a terminal. Returns what ends it. */
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
    // Left at the line's start, so that what the script prints takes its place.
    stderr().show(`${ERASE_LINE}${columns.join("   ").slice(0, terminalWidth() - 1)}\r`);
  }, INTERVAL);
  return () => {
    clearInterval(timer);
    stderr().show(ERASE_LINE);
  };
}

/** Says what a tunnel did. */
export function summarize(tunnel: Tunnel): void {
  const neverRan = tunnel.hasRun ? "" : "it never ran; ";
  console.error(
    `${tunnel.name} is closed: ${neverRan}${formatSummary(tunnel.stats, tunnel.far !== undefined)}`,
  );
}

/** Counters, and how fast they grew since a second ago. */
export function formatRates(now: TunnelStats, before: TunnelStats): string {
  const outbound = now.outbound.packetsIn;
  const inbound = now.inbound.packetsOut;
  return `outbound ${outbound} (${outbound - before.outbound.packetsIn}/s), ` +
    `inbound ${inbound} (${inbound - before.inbound.packetsOut}/s), dropped ${dropped(now)}`;
}

/** All that a tunnel counted, in a line. */
export function formatSummary(stats: TunnelStats, hasFarEnd: boolean): string {
  const { outbound, inbound, malformed } = stats;
  const reasons = Object.entries(stats.dropped).map(([reason, count]) => `${reason} ${count}`);
  return [
    `from this machine ${packets(outbound.packetsIn, outbound.bytesIn)}`,
    `to it ${packets(inbound.packetsOut, inbound.bytesOut)}`,
    ...(hasFarEnd
      ? [
        `to the far end ${packets(outbound.packetsOut, outbound.bytesOut)}`,
        `from there ${packets(inbound.packetsIn, inbound.bytesIn)}`,
      ]
      : []),
    `dropped ${dropped(stats)}${reasons.length === 0 ? "" : ` (${reasons.join(", ")})`}`,
    ...(malformed === 0 ? [] : [`malformed ${malformed}`]),
  ].join("; ");
}

function packets(count: number, bytes: number): string {
  return count === 0 ? "no packet" : `${count} packet${count === 1 ? "" : "s"}, ${bytes} bytes`;
}

function dropped(stats: TunnelStats): number {
  return Object.values(stats.dropped).reduce((sum, count) => sum + count, 0);
}

function workers(options: TunnelOptions): string[] {
  const count = workerCount(options);
  return count === 1 ? [] : [`${count} workers`];
}

function addresses(options: TunnelOptions): string[] {
  return [options.address ?? []].flat();
}

/** The first address of a network that is not this machine's. */
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
    // A terminal that is gone has none.
    return COLUMNS;
  }
}
