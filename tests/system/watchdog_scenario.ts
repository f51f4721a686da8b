/** A tunnel in memory with its watchdog, in a process of its own: `MODE OPTIONS`, told that it is ready by a line. */

import { MemoryDevice } from "../../driver/memory.ts";
import { openTunnel, type TunnelOptions, Verdict } from "../../runtime/mod.ts";

// Implementation
/** How long nothing comes: several times what the watchdog is set to (milliseconds). */
const IDLE = 1500;

/** Settled when a thread that started after the watchdog's is at work. */
async function threadStarts(): Promise<void> {
  const url = URL.createObjectURL(new Blob(["postMessage(0)"], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module" });
  await new Promise((resolve) => worker.onmessage = resolve);
  worker.terminate();
  URL.revokeObjectURL(url);
}

const [mode, options] = Deno.args;
const [device, outside] = MemoryDevice.pair();
const tunnel = await openTunnel({ ...JSON.parse(options!) as TunnelOptions, device });
const run = tunnel.run(function spin() {
  while (mode === "hang");
  return Verdict.Drop;
});
// Keeps the process when nothing else does, as a script's own server would.
const keeping = setInterval(() => {}, 60_000);
await threadStarts();
switch (mode) {
  case "idle":
    // The watchdog's clock is the system's: there is no other way to see that it lets a process live.
    await new Promise((resolve) => setTimeout(resolve, IDLE));
    tunnel.close();
    await run;
    clearInterval(keeping);
    break;
  case "hang": {
    console.log("ready");
    const other = await openTunnel({ ...JSON.parse(options!) as TunnelOptions, device: outside });
    other.send(Uint8Array.of(1));
    other.run().catch(() => {});
    break;
  }
  case "closed":
    tunnel.close();
    await run;
    console.log("ready");
    break;
  case "running":
    console.log("ready");
    await run;
    clearInterval(keeping);
}
