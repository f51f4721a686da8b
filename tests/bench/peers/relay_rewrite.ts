/** `scripts/relay.ts` with a handler that looks into every TCP and UDP packet and rewrites its TTL. */
import { device, script, Verdict } from "@warren/tunnel";
import { Tcp } from "@warren/tunnel/tcp";
import { Udp } from "@warren/tunnel/udp";

const TTL = 63;
const options = { name: "left", far: device({ name: "right" }) };

export default script(import.meta, options, (tunnel) =>
  tunnel.run((packet) => {
    const transport = Tcp.of(packet) ?? Udp.of(packet);
    if (transport !== undefined) transport.ip.ttl = TTL;
    return Verdict.Pass;
  }));
