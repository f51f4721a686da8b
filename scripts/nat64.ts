#!/usr/bin/env -S deno run --allow-ffi
/**
 * Lets hosts with IPv6 alone reach IPv4.
 * Try: curl -g 'http://[64:ff9b::c000:201]/', for a server at 192.0.2.1 behind the far device
 */
import { device, script } from "@warren/tunnel";
import { IcmpErrors } from "@warren/tunnel/icmp_error";
import { mssClamp } from "@warren/tunnel/mss_clamp";
import { Nat64 } from "@warren/tunnel/nat64";

const OUTSIDE = "198.51.100.2";

const options = {
  name: "six",
  address: "fd64::1/64",
  route: "64:ff9b::/96",
  far: device({ name: "four", address: "198.51.100.1/24" }),
};

export default script(import.meta, options, (tunnel) => {
  const errors = new IcmpErrors({ address: [OUTSIDE, "fd64::64"] });
  tunnel.use(mssClamp({ mtu: 1500 }));
  tunnel.use(new Nat64({ outside: OUTSIDE, errors }));
  return tunnel.run();
});
