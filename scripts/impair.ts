#!/usr/bin/env -S deno run --allow-ffi
/**
 * Joins two TUN devices by a bad link, and says at the end what it did.
 * Try: as relay.ts says, then ping -i 0.01 10.9.0.2
 */
import { device, Direction, script } from "@warren/tunnel";
import { Impairment } from "@warren/tunnel/impair";

const options = { name: "left", address: "10.9.0.1/24", far: device({ name: "right" }) };

export default script(import.meta, options, async (tunnel) => {
  const impairment = new Impairment({
    seed: 7,
    outbound: { delay: 40, jitter: 4, distribution: "normal", loss: 0.02 },
    inbound: { delay: 10 },
    // Also: gilbertElliott: { toBad: 0.01, toGood: 0.2 }, duplicate, corrupt, reorder, gap, rateBitsPerSecond, limit.
  });
  await tunnel.use(impairment).run();
  console.log("there", impairment.stats(Direction.Outbound));
  console.log("back", impairment.stats(Direction.Inbound));
});
