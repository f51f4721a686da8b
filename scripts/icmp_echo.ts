#!/usr/bin/env -S deno run --allow-ffi
/** Answers every ping sent into 10.9.0.0/24 and fd09::/64. Try: ping 10.9.0.77 */
import { script, Verdict } from "@warren/tunnel";
import { Icmpv4 } from "@warren/tunnel/icmpv4";
import { Icmpv6 } from "@warren/tunnel/icmpv6";

export default script(
  import.meta,
  { address: ["10.9.0.1/24", "fd09::1/64"] },
  (tunnel) =>
    tunnel.run((packet) => {
      const icmp = Icmpv4.of(packet) ?? Icmpv6.of(packet);
      if (icmp instanceof Icmpv4 && icmp.type === Icmpv4.EchoRequest) icmp.type = Icmpv4.EchoReply;
      else if (icmp instanceof Icmpv6 && icmp.type === Icmpv6.EchoRequest) icmp.type = Icmpv6.EchoReply;
      else return Verdict.Drop;
      icmp.ip.swap();
      return Verdict.Reply;
    }),
);
