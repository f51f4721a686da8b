#!/usr/bin/env -S deno run --allow-ffi
/**
 * Joins two TUN devices.
 * Try: ip netns add lab; ip link set right netns lab; ip -n lab address add 10.9.0.2/24 dev right;
 * ip -n lab link set right up; ping 10.9.0.2
 */
import { device, script } from "@warren/tunnel";

const options = { name: "left", address: "10.9.0.1/24", far: device({ name: "right" }) };

export default script(import.meta, options, (tunnel) => tunnel.run());
