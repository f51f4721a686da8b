/** What a relay tells of itself: what it has counted, beside the kernel's counters, and where its memory is. */

import type { Tunnel } from "@warren/tunnel";
import type { Device, DeviceStatistics, TunnelStats } from "@warren/tunnel/core";
import { addressOf } from "../../../driver/native_memory.ts";
import { currentLoop } from "../../../runtime/engine/loop.ts";

/** What is told, as JSON behind `told `. */
export interface Told {
  readonly tunnels: readonly {
    readonly stats: TunnelStats;
    /** The kernel's counters of its device, and of a far end that is one; none when it is closed. */
    readonly near?: DeviceStatistics;
    readonly far?: DeviceStatistics;
  }[];
  /** What V8 uses (bytes). */
  readonly heapUsed: number;
  /** Where packets live: an address, and bytes; and how many slots are taken. */
  readonly pool: { readonly address: number; readonly length: number; readonly taken: number };
}

/** Runs tunnels, and tells of them on SIGUSR1, after a collection, and when they are closed. */
export async function runTold(...tunnels: Tunnel[]): Promise<void> {
  Deno.addSignalListener("SIGUSR1", () => {
    (globalThis as { gc?: () => void }).gc?.();
    tell(tunnels);
  });
  await Promise.all(tunnels.map((tunnel) => tunnel.run()));
  tell(tunnels);
}

function tell(tunnels: readonly Tunnel[]): void {
  const { pool } = currentLoop();
  const told: Told = {
    tunnels: tunnels.map(({ stats, device, far }) => ({
      stats,
      near: device.statistics(),
      far: (far as Partial<Device>).statistics?.(),
    })),
    heapUsed: Deno.memoryUsage().heapUsed,
    pool: {
      address: addressOf(pool.bytes),
      length: pool.bytes.length,
      taken: pool.taken,
    },
  };
  console.log(`told ${JSON.stringify(told)}`);
}
