#!/usr/bin/env -S deno run --allow-ffi
/** Prints every packet that passes. Try: ping 10.9.0.77, which nobody answers; or --far udp://192.0.2.1:4500 */
import { Direction, script, Verdict } from "@warren/tunnel";
import { inspect } from "@warren/tunnel/inspect";

export default script(
  import.meta,
  { address: "10.9.0.1/24" },
  (tunnel) =>
    tunnel.run((packet, { direction }) => {
      console.log(direction === Direction.Outbound ? ">" : "<", inspect(packet));
      return Verdict.Pass;
    }),
);
