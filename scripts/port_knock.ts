#!/usr/bin/env -S deno run --allow-ffi
/**
 * Joins two TUN devices; from `right`, ssh opens for a minute to who knocks at three TCP ports in their order.
 * Try: as relay.ts says, then ip netns exec lab nmap -Pn -r -p 7000,8000,9000 10.9.0.1
 */
import { device, Direction, type Packet, script } from "@warren/tunnel";
import { Firewall } from "@warren/tunnel/firewall";
import { Tcp } from "@warren/tunnel/tcp";

const KNOCKS = [7000, 8000, 9000];
const KNOCK_LIMIT = 10_000; // ms, from the first knock to the last
const OPEN_FOR = 60_000; // ms
const SOURCES = 10_000; // that are remembered

const options = { name: "left", address: "10.9.0.1/24", far: device({ name: "right" }) };

export default script(import.meta, options, (tunnel) => {
  const knockers = new Map<string, { count: number; since: number }>();
  const mayEnter = (packet: Packet) => {
    const knocker = knockers.get(Tcp.of(packet)!.ip.srcText);
    return knocker?.count === KNOCKS.length && packet.time - knocker.since < OPEN_FOR;
  };
  const ssh = { name: "ssh", verdict: "allow", direction: "inbound", protocol: "tcp", dstPort: 22 } as const;
  tunnel.use(new Firewall({ rules: [{ ...ssh, match: mayEnter }] }));
  return tunnel.run((packet, { direction, now }) => {
    const tcp = Tcp.of(packet);
    if (direction === Direction.Outbound || !tcp?.isSyn || tcp.dstPort === 22) return;
    const source = tcp.ip.srcText;
    const { count, since } = knockers.get(source) ?? { count: 0, since: now };
    const isOver = now - since > (count === KNOCKS.length ? OPEN_FOR : KNOCK_LIMIT);
    const heard = isOver ? 0 : count;
    const knock = KNOCKS.indexOf(tcp.dstPort);
    if (heard === KNOCKS.length || knock >= 0 && knock < heard) return; // sent again
    knockers.delete(source);
    if (knock !== heard) return;
    knockers.set(source, { count: heard + 1, since: knock === 1 ? since : now });
    if (heard + 1 === KNOCKS.length) console.log(`${source} may enter`);
    if (knockers.size > SOURCES) knockers.delete(knockers.keys().next().value!);
  });
});
