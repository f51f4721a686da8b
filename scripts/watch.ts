#!/usr/bin/env -S deno run --allow-ffi
/** Prints every packet that passes. Try: ping 10.9.0.77, which nobody answers; or --far udp://192.0.2.1:4500 */
import { Direction, script, Verdict } from "@warren/tunnel";
import { compileFilter } from "@warren/tunnel/filter";
import { inspect } from "@warren/tunnel/inspect";

/** Which packets are printed, in the syntax of pcap-filter(7), such as "tcp port 80 or inbound": all. */
const isShown = compileFilter("");

export default script(
  import.meta,
  { address: "10.9.0.1/24" },
  (tunnel) =>
    tunnel.run((packet, { direction }) => {
      if (isShown(packet, direction)) {
        console.log(direction === Direction.Outbound ? ">" : "<", inspect(packet));
      }
      return Verdict.Pass;
    }),
);
