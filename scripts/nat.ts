#!/usr/bin/env -S deno run --allow-ffi
/**
 * A NAT router between two TUN devices.
 * Try: ip netns add lab; ip link set outside netns lab; ip -n lab address add 192.0.2.1/24 dev outside;
 * ip -n lab link set outside up; ip -n lab route add 198.51.100.0/24 dev outside; ping 192.0.2.1
 */
import { device, script } from "@warren/tunnel";
import { Napt44 } from "@warren/tunnel/nat";

const options = {
  name: "inside",
  address: "10.9.0.1/24",
  route: ["192.0.2.0/24", "198.51.100.0/24"],
  far: device({ name: "outside" }),
};

export default script(import.meta, options, (tunnel) => {
  const nat = new Napt44({
    outside: "198.51.100.1",
    inside: "10.9.0.0/16",
    // From outside, http://198.51.100.1:8080/ is the web server of 10.9.1.2.
    forwards: [{ protocol: "tcp", port: 8080, to: "10.9.1.2:80" }],
    unmatched: "drop",
  });
  return tunnel.use(nat).run();
});
