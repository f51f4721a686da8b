#!/usr/bin/env -S deno run --allow-ffi
/** Joins three clients, encrypted. Try: hub.ts --key "$(cat key)" on 192.0.2.1; on a client udp_tunnel.ts with the same key, --as laptop --address 10.9.0.2/24 --far udp://192.0.2.1:4500; on another --as phone --address 10.9.0.3/24; there ping 10.9.0.2 */
import { Direction, script, sealed, udp, Verdict } from "@warren/tunnel";
import { parseIpv4 } from "@warren/tunnel/address";
import { Ipv4 } from "@warren/tunnel/ipv4";

const peers = ["laptop", "phone", "office"].map((name, i) => ({ name, allowed: [`10.9.0.${i + 2}`] }));
const far = sealed({ key: { flag: "key" }, peers, over: udp({ listen: 4500 }) });
const flags = {
  key: { type: "string", required: true, description: "from: openssl rand -base64 32" },
} as const;
const HUB = parseIpv4("10.9.0.1");

export default script(
  import.meta,
  { address: "10.9.0.1/24", mtu: 1412, far, flags },
  (tunnel) =>
    tunnel.run((packet, { direction }) => {
      // From one client to another.
      const isForOther = direction === Direction.Inbound && Ipv4.of(packet)?.dst !== HUB;
      return isForOther ? Verdict.Reply : Verdict.Pass;
    }),
);
