/** UDP sockets of the driver against the real kernel: over a slow link, and over two links. */

import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";
import { until } from "../kit/host.ts";
import { link, openNamespace, runModule, systemTest } from "../kit/system.ts";
import { kernelCounters, protocolCounter, Running } from "../kit/traffic.ts";
import { isElsewhere, LENGTHS, type Slow } from "./udp_socket_scenario.ts";

const SCENARIO = new URL("./udp_socket_scenario.ts", import.meta.url);

/** Paths whose MTU admits a message of several datagrams, and paths whose MTU does not. */
const ROADS = [
  ["IPv4", "192.0.2.1", "192.0.2.2", 1500],
  ["IPv4", "192.0.2.1", "192.0.2.2", 1000],
  ["IPv6", "fdee::1", "fdee::2", 1500],
  ["IPv6", "fdee::1", "fdee::2", 1280],
] as const;

systemTest(
  "UdpSocket.send() stops when the send buffer is full, and the loop's wait ends when it has room",
  { programs: ["ip", "tc"] },
  async () => {
    await using left = await openNamespace();
    await using right = await openNamespace();
    await link(
      { namespace: left, name: "veth", addresses: ["192.0.2.1/24"] },
      { namespace: right, name: "veth", addresses: ["192.0.2.2/24"] },
    );
    const rate = ["rate", "2mbit", "burst", "4kb", "limit", "1mb"];
    await left.command("tc", ["qdisc", "add", "dev", "veth", "root", "tbf", ...rate]);
    const { first, refusals, ready } = await runModule<Slow>(left, SCENARIO, ["slow", "192.0.2.2"]);
    assert.ok(first > 0 && first < 64, `${first} were sent at once`);
    assert.deepEqual(new Set(refusals), new Set([null]));
    assert.deepEqual(new Set(ready), new Set([true]));
    // No socket receives there, and the kernel counts datagrams without one.
    await until(async () => await protocolCounter(right, "UdpNoPorts") >= 64, "64 datagrams came");
    assert.equal(await protocolCounter(right, "UdpNoPorts"), 64);
  },
);

for (const [family, left, right, mtu] of ROADS) {
  const name = `UdpSocket.send() sends datagrams as they are, over ${family} and an MTU of ${mtu}`;
  systemTest(name, { programs: ["ip"] }, async () => {
    await using one = await openNamespace();
    await using other = await openNamespace();
    const length = left.includes(":") ? 64 : 24;
    await link(
      { namespace: one, name: "veth", addresses: [`${left}/${length}`] },
      { namespace: other, name: "veth", addresses: [`${right}/${length}`] },
    );
    for (const namespace of [one, other]) {
      await namespace.command("ip", ["link", "set", "veth", "mtu", String(mtu)]);
    }
    const words = ["run", "--quiet", "--no-prompt", "--allow-ffi", fileURLToPath(SCENARIO), "receive", right];
    const child = other.spawn(Deno.execPath(), words);
    await using running = new Running(child, child.stdout, child.stderr);
    await running.said(/^ready$/m);
    const before = (await kernelCounters(one, "veth")).tx.packets;
    assert.equal(await runModule<number>(one, SCENARIO, ["send", right]), LENGTHS.length);
    const { heard } = await running.ended();
    const expected = LENGTHS.map((length, i) => [i, length]).filter(([i]) => !isElsewhere(i!));
    assert.deepEqual(JSON.parse(/^\[.*$/m.exec(heard)![0]), expected);
    // Several datagrams of a message pass the link as one packet.
    const passed = (await kernelCounters(one, "veth")).tx.packets - before;
    if (mtu === 1500) assert.ok(passed < LENGTHS.length / 2, `${passed} passed`);
  });
}

systemTest(
  "UdpSocket with an interface receives nothing that arrives by another one",
  { programs: ["bash", "ip"] },
  async () => {
    await using left = await openNamespace();
    await using right = await openNamespace();
    for (const [i, name] of ["one", "two"].entries()) {
      await link(
        { namespace: left, name, addresses: [`10.${i}.0.1/24`] },
        { namespace: right, name, addresses: [`10.${i}.0.2/24`] },
      );
    }
    const words = ["run", "--quiet", "--no-prompt", "--allow-ffi", fileURLToPath(SCENARIO), "kept", "two"];
    const child = right.spawn(Deno.execPath(), words);
    await using running = new Running(child, child.stdout, child.stderr);
    await running.said(/^ready$/m);
    // By the first link twice, then by the second one.
    const send = (address: string) =>
      left.command("bash", ["-c", `echo datagram > /dev/udp/${address}/4500`]);
    await send("10.0.0.2");
    await send("10.0.0.2");
    await send("10.1.0.2");
    const { code, heard } = await running.ended();
    assert.equal(code, 0, heard);
    assert.match(heard, /^1$/m);
    assert.equal(await protocolCounter(right, "UdpNoPorts"), 2);
  },
);
