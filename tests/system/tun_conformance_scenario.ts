/**
 * The conformance suite over TUN devices: tests of their own, which tun_conformance_test.ts runs in a namespace.
 *
 *     near ── write ─► kernel, its packets redirected by tc(8) ─► read ── far, and back
 *
 * The kernel hands on what comes in by one device as what goes out by the other one before it looks at a header: the
 * suite's packets arrive as they are, though no router would take them.
 */

import assert from "node:assert/strict";
import { libc } from "../../driver/linux/libc.ts";
import type { DeviceOptions } from "../../driver/options.ts";
import { PacketBatch } from "../../lib/core/mod.ts";
import {
  carryLengths,
  endConformance,
  type EndPair,
  numbered,
  receive,
  sequenceOf,
} from "../conformance/end.ts";
import { cable } from "../kit/cable.ts";
import { TestHost } from "../kit/host.ts";
import { command } from "../kit/system.ts";
import { openDevices } from "./_redirected_devices.ts";

// Stays open, so it is not opened within a test.
libc();

async function openPair(mtu: number, linux: DeviceOptions["linux"]): Promise<EndPair> {
  const [near, far] = cable(...await openDevices(mtu, linux));
  return {
    near,
    far,
    mtu,
    failsWithPeer: false,
    gone: () => Promise.all([near.closed, far.closed]),
  };
}

for (const [mtu, offload, uring] of [[576, false, true], [1500, false, false], [1500, true, true]] as const) {
  const name = `TunDevice of MTU ${mtu}${offload ? " with offload" : ""}${uring ? " and io_uring" : ""}`;
  endConformance(name, () => openPair(mtu, { offload, uring }));
}

Deno.test("TunDevice carries packets of every length up to an MTU of 9000 and of 65535", async () => {
  for (const mtu of [9000, 65_535]) {
    const [near, far] = await openDevices(mtu);
    await carryLengths(near, far, mtu);
  }
});

Deno.test("TunDevice.write() accepts all packets, and the kernel counts those that overflow its queue", async () => {
  const [sent, room] = [3000, 100];
  const [near, far] = await openDevices(1500, { txQueueLength: room });
  const [nearHost, farHost] = [new TestHost(), new TestHost()];
  near.attach(nearHost);
  far.attach(farHost);
  const batch = new PacketBatch();
  for (let next = 0; next < sent;) {
    for (; next < sent && !batch.full; next++) batch.push(numbered(nearHost.pool, next));
    near.write(batch);
    assert.equal(batch.length, 0);
  }
  assert.equal(nearHost.lost, 0);
  const dropped = far.statistics()!.txDropped;
  assert.equal(near.statistics()!.rxPackets, sent);
  const arrived = await receive(far, farHost, sent - dropped);
  assert.deepEqual(arrived.map(sequenceOf), Array.from({ length: sent - dropped }, (_, i) => i));
  assert.equal(far.read(batch), 0);
  assert.ok(dropped > 0 && sent - dropped >= room, `${dropped} were dropped`);
  near.close();
  far.close();
  assert.deepEqual([nearHost.pool.taken, farHost.pool.taken], [0, 0]);
});

Deno.test("TunDevice that is removed by hand fails with the reason", async () => {
  const [near, far] = await openDevices(1500);
  const host = new TestHost();
  near.attach(host);
  await command("ip", ["link", "delete", near.name]);
  assert.equal(near.read(new PacketBatch()), 0);
  const batch = new PacketBatch();
  batch.push(numbered(host.pool, 1));
  near.write(batch);
  for (const packet of batch) host.pool.give(packet);
  assert.match(
    String(near.failure),
    /^DriverError: Cannot read from "near\d+": EBADFD \(77\): the device was removed$/,
  );
  near.close();
  far.close();
  assert.equal(host.pool.taken, 0);
});
