#!/usr/bin/env -S deno run --allow-ffi
/** Joins two machines over UDP, encrypted. Try: openssl rand -base64 32 > key; udp_tunnel.ts --key "$(cat key)" on 192.0.2.1; on the other machine the same key, --address 10.9.0.2/24 --far udp://192.0.2.1:4500; there ping 10.9.0.1 */
import { script, sealed, udp } from "@warren/tunnel";

const far = sealed({ key: { flag: "key" }, name: { flag: "as" }, over: udp({ listen: 4500 }) });
const flags = {
  key: { type: "string", required: true, description: "secret of both sides, from: openssl rand -base64 32" },
  as: { type: "string", value: "NAME", description: "name of this machine among the clients of hub.ts" },
} as const;
// 1500 bytes of Ethernet, less 48 for IPv6 and UDP, and 40 for the sealed protocol.
const options = { address: "10.9.0.1/24", mtu: 1412, far, flags };

export default script(import.meta, options, (tunnel) => tunnel.run());
