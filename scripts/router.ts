#!/usr/bin/env -S deno run --allow-ffi
/**
 * Routes among three TUN devices, which namespaces can have.
 * Try: ip netns add a; ip link set lan netns a; ip -n a addr add 10.1.0.2/16 dev lan; ip -n a link set lan up;
 * ip -n a route add default dev lan; the same with 10.2.0.2/16 in b for dmz; ip netns exec a ping 10.2.0.2
 */
import { device, script, switchboard } from "@warren/tunnel";
import { IcmpErrors } from "@warren/tunnel/icmp_error";
import { route } from "@warren/tunnel/route";
import { ttl } from "@warren/tunnel/ttl";

const [WAN, LAN, DMZ] = [0, 1, 2];
const options = {
  name: "wan",
  address: "10.0.0.1/24",
  route: ["10.1.0.0/16", "10.2.0.0/16"],
  far: switchboard([device({ name: "lan" }), device({ name: "dmz" })]),
};

export default script(import.meta, options, (tunnel) => {
  const errors = new IcmpErrors({ address: "10.0.0.254" });
  tunnel.use(
    route([
      // Mail leaves the LAN for the DMZ alone, whomever it is for.
      { end: LAN, protocol: "tcp", dstPort: 25, to: DMZ },
      // Guests see the world, and no neighbours.
      { end: LAN, src: "10.1.200.0/24", to: WAN },
      { to: { "10.1.0.0/16": LAN, "10.2.0.0/16": DMZ, "0.0.0.0/0": WAN } },
    ], { errors }),
  );
  // What comes from the LAN and the DMZ is a hop further; the kernel counts its own.
  tunnel.use(ttl({ outbound: "keep", errors }));
  return tunnel.run();
});
