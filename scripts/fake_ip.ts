#!/usr/bin/env -S deno run --allow-ffi
/**
 * Gives each name addresses of its own, says which name a packet goes to, and answers pings for it.
 * Try: dig @10.9.0.53 www.example.com; ping 198.18.0.1
 */
import { Direction, script, Verdict } from "@warren/tunnel";
import { DnsResolver, FakeIp } from "@warren/tunnel/dns";
import { Icmpv4 } from "@warren/tunnel/icmpv4";
import { Icmpv6 } from "@warren/tunnel/icmpv6";
import { inspect } from "@warren/tunnel/inspect";

const options = {
  address: ["10.9.0.1/24", "fd09::1/64"],
  route: ["198.18.0.0/15", "fd09:fa4e::/96"],
};

export default script(import.meta, options, (tunnel) => {
  const fakeIp = new FakeIp({ ipv4: "198.18.0.0/15", ipv6: "fd09:fa4e::/96" });
  return tunnel.use(new DnsResolver({ address: ["10.9.0.53", "fd09::53"], fakeIp })).run(
    (packet, { direction }) => {
      if (direction === Direction.Inbound) return Verdict.Pass;
      const name = fakeIp.destinationOf(packet);
      if (name === undefined) return Verdict.Drop;
      console.log(`to ${name}: ${inspect(packet)}`);
      // What a router would do by the name: choose a peer, or connect to it.
      const icmp = Icmpv4.of(packet) ?? Icmpv6.of(packet);
      if (icmp instanceof Icmpv4 && icmp.type === Icmpv4.EchoRequest) icmp.type = Icmpv4.EchoReply;
      else if (icmp instanceof Icmpv6 && icmp.type === Icmpv6.EchoRequest) icmp.type = Icmpv6.EchoReply;
      else return Verdict.Drop;
      icmp.ip.swap();
      return Verdict.Reply;
    },
  );
});
