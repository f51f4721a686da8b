#!/usr/bin/env -S deno run --allow-ffi
/**
 * Joins two TUN devices at 20 Mbit/s there and 50 Mbit/s back.
 * Try: as relay.ts says, then iperf3 -s in lab, iperf3 -c 10.9.0.2, and ping 10.9.0.2 meanwhile
 */
import { device, script } from "@warren/tunnel";
import { bandByDscp, Fifo, FqCodel, Priority, Shaper } from "@warren/tunnel/shape";

const options = { name: "left", address: "10.9.0.1/24", far: device({ name: "right" }) };

export default script(import.meta, options, (tunnel) => {
  // Calls (DSCP EF) go first; all other flows share what these leave.
  const bands = [new Fifo({ packets: 32 }), new FqCodel()];
  const queue = new Priority({ bands, classify: bandByDscp({ 46: 0 }, 1) });
  tunnel.use(
    new Shaper({
      outbound: { rateBitsPerSecond: 20e6, queue },
      inbound: { rateBitsPerSecond: 50e6 },
    }),
  );
  return tunnel.run();
});
