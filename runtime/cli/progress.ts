/** What a running script shows: a greeting, and counters while standard error is a terminal. */

import type { Tunnel, TunnelOptions } from "../tunnel.ts";

// Implementation
const INTERVAL = 1000;

/** A tunnel's options in a line: what `--dry-run` says. */
export function describe(options: TunnelOptions): string {
  const { name = "tun%d", address = [], route = [], mtu, far } = options;
  const routes = [route].flat().map((one) =>
    typeof one === "string" ? one : `${one.to} via ${one.via ?? "it"}`
  );
  return [
    `device ${options.device?.name ?? name}`,
    ...[address].flat().map((one) => `address ${one}`),
    ...routes.map((one) => `route ${one}`),
    ...(mtu === undefined ? [] : [`mtu ${mtu}`]),
    ...(typeof far === "string" ? [`far end ${far}`] : []),
  ].join(", ");
}

/** Shows that tunnels are open, then their counters once a second on a terminal. Returns what ends it. */
export function showProgress(tunnels: Tunnel[]): () => void {
  for (const { name, device, far } of tunnels) {
    console.error(
      `${name} is open, MTU ${device.mtu}${far === undefined ? "" : `, to ${far.name}`}; Ctrl-C ends it`,
    );
  }
  if (!Deno.stderr.isTerminal()) return () => {};
  const encoder = new TextEncoder();
  const before = tunnels.map(() => ({ out: 0, in: 0 }));
  const timer = setInterval(() => {
    const columns = tunnels.map((tunnel, i) => {
      const { outbound, inbound, dropped } = tunnel.stats;
      const now = { out: outbound.packetsIn, in: inbound.packetsOut };
      const rate = { out: now.out - before[i]!.out, in: now.in - before[i]!.in };
      before[i] = now;
      const drops = Object.values(dropped).reduce((sum, count) => sum + count, 0);
      return `${tunnel.name}: from here ${now.out} (${rate.out}/s), to here ${now.in} (${rate.in}/s), dropped ${drops}`;
    });
    Deno.stderr.writeSync(encoder.encode(`\r\x1b[K${columns.join("   ")}`));
  }, INTERVAL);
  return () => {
    clearInterval(timer);
    Deno.stderr.writeSync(encoder.encode("\r\x1b[K"));
  };
}
