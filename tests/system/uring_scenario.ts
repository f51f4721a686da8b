/**
 * TUN devices whose queues use io_uring under load: tests that uring_test.ts runs in a namespace. With the argument
 * `refused` they expect that the kernel refuses io_uring; with `oneshot` they read as kernels before 6.7 do.
 */

import assert from "node:assert/strict";
import { libc } from "../../driver/linux/libc.ts";
import type { TunDevice } from "../../driver/linux/device.ts";
import { PacketBatch } from "../../lib/core/mod.ts";
import { numbered, pattern, sequenceOf } from "../conformance/end.ts";
import { TestHost } from "../kit/host.ts";
import { command } from "../kit/system.ts";
import { openDevices } from "./_redirected_devices.ts";

// Stays open, so it is not opened within a test.
libc();

const REFUSED = Deno.args.includes("refused");
const ONESHOT = Deno.args.includes("oneshot");
const PLAIN = { offload: false, uring: ONESHOT ? "oneshot" : true } as const;
/** More than a batch, less than the kernel's queue. */
const BURST = 500;
/** Reads of few packets after which the queue is calm for certain. */
const CALM = 64;

/** Reports whether a device waits for a ring instead of its own descriptor or, if it may do either, has lent slots. */
function isRinging(device: TunDevice, host: TestHost): boolean {
  const waits = Deno.readLinkSync(`/proc/self/fd/${device.waitable}`) === "anon_inode:[io_uring]";
  return ONESHOT ? host.pool.taken > 0 : waits;
}

/** Two devices with a host each, which return every slot when they are closed. */
class Rig {
  readonly near: TunDevice;
  readonly far: TunDevice;
  readonly nearHost: TestHost = new TestHost();
  readonly farHost: TestHost = new TestHost();
  #next = 0;
  #expected = 0;

  constructor([near, far]: [TunDevice, TunDevice]) {
    this.near = near;
    this.far = far;
    near.attach(this.nearHost);
    far.attach(this.farHost);
  }

  /** Writes `count` numbered packets, one batch at a time. */
  write(count: number): void {
    const batch = new PacketBatch();
    const end = this.#next + count;
    while (this.#next < end || batch.length > 0) {
      while (this.#next < end && !batch.full) batch.push(numbered(this.nearHost.pool, this.#next++));
      this.near.write(batch);
    }
  }

  /** Reads once, and checks that the numbers continue. */
  read(): number {
    const batch = new PacketBatch();
    const count = this.far.read(batch);
    for (const packet of batch) {
      assert.equal(sequenceOf(packet.data), this.#expected++);
      packet.pool.give(packet);
    }
    return count;
  }

  /** Reads until every written packet has arrived; returns whether a ring read any. */
  readAll(): boolean {
    let rang = false;
    for (let idle = 0; this.#expected < this.#next; idle++) {
      if (this.read() > 0) idle = 0;
      rang ||= isRinging(this.far, this.farHost);
      assert.ok(idle < 1e5, `${this.#expected} of ${this.#next} packets came`);
    }
    return rang;
  }

  close(): void {
    this.near.close();
    this.far.close();
    assert.deepEqual([this.nearHost.pool.taken, this.farHost.pool.taken], [0, 0]);
    assert.deepEqual([this.nearHost.dropped, this.farHost.dropped], [{}, {}]);
  }
}

Deno.test("TunDevice reads by a ring under load, in order, and stops when it is calm", async () => {
  const rig = new Rig(await openDevices(1500, PLAIN));
  for (let round = 0; round < 20; round++) {
    assert.equal(isRinging(rig.far, rig.farHost), false);
    rig.write(1);
    assert.equal(rig.readAll(), false, "one packet needs no ring");
    rig.write(BURST);
    assert.equal(rig.readAll(), !REFUSED);
    for (let i = 0; i < CALM; i++) rig.read();
  }
  assert.equal(rig.farHost.pool.taken, 0);
  rig.close();
});

for (
  const [name, mtu, offload] of [["whose packets may be long", 9000, false], [
    "with offload",
    1500,
    true,
  ]] as const
) {
  Deno.test(`TunDevice ${name} needs no ring`, async () => {
    const rig = new Rig(await openDevices(mtu, { offload }));
    for (let round = 0; round < 5; round++) {
      rig.write(BURST);
      assert.equal(rig.readAll(), false);
    }
    assert.equal(rig.farHost.pool.taken, 0);
    rig.close();
  });
}

Deno.test("TunDevice reads packets that arrived before its MTU grew, and goes on without a ring", async () => {
  const rig = new Rig(await openDevices(1500, PLAIN));
  rig.write(BURST);
  rig.read();
  assert.equal(isRinging(rig.far, rig.farHost), !REFUSED);
  for (const { name } of [rig.near, rig.far]) await command("ip", ["link", "set", name, "mtu", "9000"]);
  rig.farHost.look();
  assert.equal(rig.far.mtu, 9000);
  rig.readAll();
  assert.equal(isRinging(rig.far, rig.farHost), false);
  rig.close();
});

Deno.test("TunDevice counts packets that are longer than its known MTU, which the kernel truncates", async () => {
  const rig = new Rig(await openDevices(1500, PLAIN));
  for (const burst of [1, BURST]) {
    rig.write(burst);
    const long = new PacketBatch();
    long.push(rig.nearHost.pool.from(pattern(3000))!);
    rig.near.write(long);
    rig.write(1);
    assert.equal(rig.readAll(), burst === BURST && !REFUSED);
  }
  assert.deepEqual(rig.farHost.refused, { "longer than the MTU": 2 });
  rig.close();
});

Deno.test("TunDevice.close() returns the slots lent to a ring, and counts packets that were not read", async () => {
  const rig = new Rig(await openDevices(1500, PLAIN));
  rig.write(BURST);
  rig.read();
  assert.equal(isRinging(rig.far, rig.farHost), !REFUSED);
  rig.read();
  rig.close();
});

Deno.test("TunDevice whose ring finds the pool empty continues when slots are free", async () => {
  const rig = new Rig(await openDevices(1500, PLAIN));
  const { pool } = rig.farHost;
  for (let round = 0; round < 5; round++) {
    rig.write(BURST);
    rig.read();
    const held = Array.from({ length: pool.available(1500) }, () => pool.take(1500)!);
    for (let i = 0; i < 10; i++) rig.read();
    for (const packet of held) pool.give(packet);
    rig.readAll();
  }
  rig.close();
});

Deno.test("TunDevice takes more packets than its ring has room for while it reads without a slot", async () => {
  const rig = new Rig(await openDevices(1500, PLAIN));
  const { far, farHost: { pool } } = rig;
  rig.write(BURST);
  rig.readAll();
  const held = new PacketBatch({ packets: pool.packets.length });
  while (pool.available(1500) > 0) held.push(pool.take(1500)!);
  // More than the ring has lent slots for.
  rig.write(BURST);
  while (pool.available(1500) > 0 || far.read(held) > 0) {
    while (pool.available(1500) > 0) held.push(pool.take(1500)!);
  }
  const { length } = held;
  assert.ok(length > 256, `${length} packets`);
  pool.give(held.packets[--held.length]!);
  while (held.length > 0) far.write(held);
  far.close();
  rig.near.close();
  assert.equal(pool.taken, 0);
});

Deno.test("TunDevice leaves packets in the kernel's queue while every large slot is taken, and loses none", async () => {
  const [near, far] = await openDevices(9000, { offload: false });
  const [nearHost, farHost] = [new TestHost(), new TestHost()];
  near.attach(nearHost);
  far.attach(farHost);
  const { pool } = farHost;
  const held = Array.from({ length: pool.available(9000) }, () => pool.take(9000)!);
  const batch = new PacketBatch();
  for (const length of [100, 8000, 200]) batch.push(nearHost.pool.from(pattern(length))!);
  near.write(batch);
  let wakes = 0;
  pool.onRoom = () => void wakes++;
  for (let i = 0; i < 100; i++) assert.equal(far.read(batch), 0);
  pool.give(held.pop()!);
  assert.equal(wakes, 1);
  // One slot for long packets is enough for all of them, as long as it is returned.
  for (let i = 0; i < 1e5 && batch.length < 2; i++) far.read(batch);
  assert.deepEqual(Array.from(batch, ({ length }) => length), [100, 8000]);
  for (let i = 0; i < 100; i++) assert.equal(far.read(batch), 0);
  pool.give(batch.packets[1]!);
  for (let i = 0; i < 1e5 && batch.length < 3; i++) far.read(batch);
  assert.deepEqual(Array.from(batch, ({ length }) => length).slice(2), [200]);
  assert.deepEqual(farHost.refused, {});
  for (const packet of [...held, batch.packets[0]!, batch.packets[2]!]) pool.give(packet);
  near.close();
  far.close();
  assert.equal(pool.taken, 0);
});

Deno.test("TunDevice that is removed while a ring reads fails with the reason", async () => {
  const rig = new Rig(await openDevices(1500, PLAIN));
  rig.write(BURST);
  rig.read();
  await command("ip", ["link", "delete", rig.far.name]);
  const batch = new PacketBatch();
  for (let i = 0; i < 100 && rig.far.failure === undefined; i++) {
    rig.far.read(batch);
    for (const packet of batch) packet.pool.give(packet);
    batch.clear();
  }
  assert.match(String(rig.far.failure), /EBADFD \(77\): the device was removed$/);
  rig.close();
});
