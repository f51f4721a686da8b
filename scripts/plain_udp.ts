#!/usr/bin/env -S deno run --allow-ffi
/** Joins two machines over UDP, in plain text. Try: plain_udp.ts on 192.0.2.1, plain_udp.ts --address 10.9.0.2/24 --far udp://192.0.2.1:4500 on the other; there ping 10.9.0.1 */
// Plain text: anyone on the path can read and forge packets, and the last sender to the port becomes the peer.
import { script, udp } from "@warren/tunnel";

// 1500 bytes of Ethernet, less 28 for IPv4 and UDP or 48 for IPv6 and UDP.
const options = { address: "10.9.0.1/24", mtu: 1452, far: udp({ listen: 4500 }) };

export default script(import.meta, options, (tunnel) => {
  console.warn("plain_udp: packets cross the network in plain text: udp_tunnel.ts encrypts them");
  return tunnel.run();
});
