/** `scripts/relay.ts` that tells on SIGUSR1 what it has counted, beside the kernel's counters, and what its heap holds. */
import { device, script } from "@warren/tunnel";
import type { Device } from "@warren/tunnel/core";

const options = { name: "left", far: device({ name: "right" }) };

export default script(import.meta, options, (tunnel) => {
  Deno.addSignalListener("SIGUSR1", () => {
    (globalThis as { gc?: () => void }).gc?.();
    const [near, far] = [tunnel.device, tunnel.far as Device].map((end) => end.statistics());
    const { heapUsed } = Deno.memoryUsage();
    console.log(`tunnel ${JSON.stringify({ stats: tunnel.stats, near, far, heapUsed })}`);
  });
  return tunnel.run();
});
