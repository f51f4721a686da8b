#!/usr/bin/env -S deno run --allow-ffi
/**
 * Sends the office's packets and all names' look-ups over UDP to the office, and the rest out by a device of this
 * machine's own.
 * Try: with the office's address below, there plain_udp.ts --address 10.20.0.1/16; here ping 10.20.0.1;
 * ip route add 198.51.100.0/24 dev split; tcpdump -i direct; ping 198.51.100.1
 */
import { device, script, switchboard } from "@warren/tunnel";
import { route } from "@warren/tunnel/route";

const [HERE, OFFICE, DIRECT] = [0, 1, 2];
const options = {
  name: "split",
  address: "10.20.255.1/16",
  mtu: 1452,
  far: switchboard(["udp://192.0.2.1:4500", device({ name: "direct" })]),
};

export default script(import.meta, options, (tunnel) => {
  tunnel.use(
    route([
      { to: { "10.20.255.1/32": HERE, "10.20.0.0/16": OFFICE } },
      { dstPort: 53, to: OFFICE },
      { end: HERE, to: DIRECT },
      { to: HERE },
    ]),
  );
  return tunnel.run();
});
