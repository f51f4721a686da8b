#!/usr/bin/env -S deno run --allow-ffi
/**
 * Joins two TUN devices: from `left` all goes out, from `right` only answers, ssh, web and pings come in.
 * Try: ip netns add lab; ip link set right netns lab; ip -n lab address add 10.9.0.2/24 dev right;
 * ip -n lab link set right up; ip netns exec lab nmap -Pn 10.9.0.1
 */
import { device, script } from "@warren/tunnel";
import { Firewall, type FirewallRule } from "@warren/tunnel/firewall";

const options = { name: "left", address: "10.9.0.1/24", far: device({ name: "right" }) };

const inbound: FirewallRule = { verdict: "allow", direction: "inbound" };
const rate = { packetsPerSecond: 10 / 60, burst: 10, perSource: true };

export default script(import.meta, options, async (tunnel) => {
  const firewall = new Firewall({
    rules: [
      { ...inbound, name: "web", protocol: "tcp", dstPort: [80, 443] },
      { ...inbound, name: "ssh", protocol: "tcp", dstPort: 22, rate },
      { ...inbound, name: "pings", protocol: ["icmp", "icmpv6"], icmpType: [8, 128] },
      { ...inbound, name: "traceroute", verdict: "reject", protocol: "udp", dstPort: "33434-33534" },
    ],
  });
  console.log(`${firewall}`);
  await tunnel.use(firewall).run();
  for (const { text, packets } of firewall.rules) console.log(`${packets} packets: ${text}`);
  console.log(`${firewall.defaults.inbound.packets} packets of other kinds came in and were dropped`);
});
