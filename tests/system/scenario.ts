/** What tests of the device do in a process of their own: one function a scenario, chosen by the first argument. */

import { type DeviceOptions, openDevice } from "../../driver/mod.ts";
import { openTunnel, type TunnelOptions, Verdict } from "../../runtime/mod.ts";

/** An error as a test sees it in another process. */
export interface Thrown {
  /** The class's name. */
  name: string;
  /** Its message. */
  message: string;
  /** `DriverError`'s code. */
  code?: string;
}

const SCENARIOS: Record<string, (options: string) => Promise<unknown>> = {
  /** Opens and closes a device; says what became of it. */
  async open(options) {
    using device = await openDevice(JSON.parse(options) as DeviceOptions);
    return { name: device.name, mtu: device.mtu };
  },
  /** Runs an echo until it fails or is told to end. */
  async echo(options) {
    await using tunnel = await openTunnel(JSON.parse(options) as TunnelOptions);
    console.error("ready");
    await tunnel.run(() => Verdict.Reply);
    return tunnel.stats;
  },
  /** Tells what happens to a device, until it is gone. */
  async events(options) {
    await using tunnel = await openTunnel(JSON.parse(options) as TunnelOptions);
    const run = tunnel.run().catch(thrown);
    const events: unknown[] = [];
    const listening = (async () => {
      for await (const event of tunnel.device.events()) {
        events.push(event);
        console.error(`event ${event.kind}`);
      }
    })();
    console.error("ready");
    const end = await run;
    await listening;
    return { events, end };
  },
  /** A stage that never returns once a packet comes. */
  async hang(options) {
    await using tunnel = await openTunnel(JSON.parse(options) as TunnelOptions);
    console.error("ready");
    await tunnel.run(function spin() {
      for (;;);
    });
  },
  /** Code beside the tunnel that never returns. */
  async hangOutside(options) {
    await using tunnel = await openTunnel(JSON.parse(options) as TunnelOptions);
    setTimeout(() => {
      for (;;);
    }, 50);
    console.error("ready");
    await tunnel.run();
  },
  /** Leaves FFI, without which nothing opens. */
  async noFfi() {
    await Deno.permissions.revoke({ name: "ffi" });
    using _device = await openDevice();
  },
};

function thrown(error: unknown): Thrown {
  const { name, message, code } = error as Error & { code?: string };
  return { name, message, code };
}

if (import.meta.main) {
  const [scenario, options] = Deno.args;
  const result = await SCENARIOS[scenario!]!(options ?? "{}").catch((error) => ({ thrown: thrown(error) }));
  console.log(JSON.stringify(result ?? {}));
}
