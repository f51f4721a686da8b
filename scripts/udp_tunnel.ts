#!/usr/bin/env -S deno run --allow-ffi
/** Joins two machines over UDP. Try: udp_tunnel.ts on 192.0.2.1, udp_tunnel.ts --address 10.9.0.2/24 --far udp://192.0.2.1:4500 on the other; there ping 10.9.0.1 */
// Plain text: whoever is on the road reads and forges packets; whoever reaches the port takes the tunnel over.
import { script, udp } from "@warren/tunnel";

// 1500 bytes of Ethernet, less 28 for IPv4 and UDP or 48 for IPv6 and UDP.
const options = { address: "10.9.0.1/24", mtu: 1452, far: udp({ listen: 4500 }) };

export default script(import.meta, options, (tunnel) => tunnel.run());
