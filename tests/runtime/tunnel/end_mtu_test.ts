/** Tunnels between ends whose MTUs differ. */

import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { MemoryDevice } from "../../../driver/mod.ts";
import { PacketBatch } from "../../../lib/core/mod.ts";
import { openTunnel, switchboard, type TunnelEnd } from "../../../runtime/mod.ts";
import { TestHost, until } from "../../kit/host.ts";
import { encodePacket, formatPacket } from "../../kit/packet_text.ts";
import { assertBalanced, QUIET } from "../../kit/tunnel.ts";

const LONG = "tcp 10.9.0.2:5000 > 10.9.0.1:80 A payload 1400";
const SHORT = "tcp 10.9.0.2:5000 > 10.9.0.1:80 A payload 100";
const ANSWER =
  "icmp 10.9.0.1 > 10.9.0.2 dscp 48 type 3 code 4 rest 1300 { tcp 10.9.0.2:5000 > 10.9.0.1:80 A payload 1400 cut 548 }";

/** Far ends of 1,300 bytes of each kind, and the places where their packets come out. */
const ENDS: Record<string, () => { far: Parameters<typeof openTunnel>[0] & object; beyond: MemoryDevice }> = {
  "a device"() {
    const [far, beyond] = MemoryDevice.pair({ mtu: 1300 });
    return { far: { far }, beyond };
  },
  "a switchboard"() {
    const [far, beyond] = MemoryDevice.pair({ mtu: 1300 });
    const [other] = MemoryDevice.pair({ mtu: 9000 });
    return {
      far: { far: switchboard([other, far]), stages: [(packet) => void (packet.to = 2)] },
      beyond,
    };
  },
  "a script's own end"() {
    const [device, beyond] = MemoryDevice.pair({ mtu: 9000 });
    // Its MTU is what it says, whatever it would take.
    const far: TunnelEnd = Object.create(device, { mtu: { value: 1300 } });
    for (const name of ["attach", "read", "write", "close"] as const) {
      Object.defineProperty(far, name, { value: device[name].bind(device) });
    }
    Object.defineProperty(far, "failure", { value: undefined });
    return { far: { far }, beyond };
  },
};

for (const [kind, open] of Object.entries(ENDS)) {
  Deno.test(`a tunnel answers what is longer than the MTU of ${kind}, at its far end`, async () => {
    const [device, system] = MemoryDevice.pair({ mtu: 9000 });
    const { far, beyond } = open();
    const [host, beyondHost] = [new TestHost(), new TestHost()];
    system.attach(host);
    beyond.attach(beyondHost);
    const tunnel = await openTunnel({ ...QUIET, ...far, device });
    const running = tunnel.run();
    const batch = new PacketBatch();
    for (const text of [SHORT, LONG, SHORT]) batch.push(host.pool.from(encodePacket(text))!);
    system.write(batch);
    const [back, out] = [new PacketBatch(), new PacketBatch()];
    await until(() => (system.read(back), back.length === 1), "the answer came");
    await until(() => (beyond.read(out), out.length === 2), "what fits came through");
    deepStrictEqual(Array.from(back, (packet) => formatPacket(packet.data)), [ANSWER]);
    deepStrictEqual(Array.from(out, (packet) => formatPacket(packet.data)), [SHORT, SHORT]);
    deepStrictEqual(tunnel.stats.dropped, {});
    assertBalanced(tunnel);
    tunnel.close();
    await running;
    for (const packet of [...back, ...out]) packet.pool.give(packet);
    strictEqual(host.pool.taken, 0);
    system.close();
    beyond.close();
  });
}
