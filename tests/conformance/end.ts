/** The guarantees of every end: one suite, run against each kind. */

import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { openWaiter } from "../../driver/mod.ts";
import {
  LARGE_ROOM,
  type Packet,
  PacketBatch,
  PacketPool,
  SMALL_ROOM,
  type TunnelEnd,
} from "../../lib/core/mod.ts";
import { TestHost, until } from "../kit/host.ts";

/** Two ends, of which each reads what the other writes. */
export interface EndPair {
  /** The end under test. */
  readonly near: TunnelEnd;
  /** Its other side. */
  readonly far: TunnelEnd;
  /** The longest packet that both take (bytes). */
  readonly mtu: number;
  /** The shortest packet that both take (bytes). @default {1} */
  readonly least?: number;
  /** Whether an end fails when the other one is closed. */
  readonly failsWithPeer: boolean;
  /** True if an end keeps packets until the other side is read. @default {false} */
  readonly keeps?: boolean;
  /** How many packets an overload tries: more than both sides hold, and no more than the system holds. @default {3000} */
  readonly overload?: number;
  /** Called with both attached: settled when packets can pass in both directions. */
  ready?(): Promise<void> | void;
  /** Called with both closed: settled when nothing is left of them. */
  gone?(): Promise<unknown> | void;
}

/** Number of packets: as many as the system's socket buffers hold if the other side gets no turn. */
const CARRIED = 250;
/** Offset of the sequence number in a packet, behind an IPv4 header. */
const SEQUENCE = 20;

class Bench implements AsyncDisposable {
  readonly near: TunnelEnd;
  readonly far: TunnelEnd;
  readonly nearHost = new TestHost();
  readonly farHost = new TestHost();
  readonly mtu: number;
  readonly least: number;
  readonly failsWithPeer: boolean;
  readonly overload: number;
  readonly keeps: boolean;
  readonly #pair: EndPair;

  constructor(pair: EndPair) {
    this.#pair = pair;
    this.overload = pair.overload ?? 3000;
    this.least = pair.least ?? 1;
    this.keeps = pair.keeps ?? false;
    ({ near: this.near, far: this.far, mtu: this.mtu, failsWithPeer: this.failsWithPeer } = pair);
    this.near.attach(this.nearHost);
    this.far.attach(this.farHost);
  }

  async ready(): Promise<this> {
    await this.#pair.ready?.();
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.near.close();
    this.far.close();
    await this.#pair.gone?.();
    strictEqual(this.nearHost.pool.taken, 0, "near's packets are back");
    strictEqual(this.farHost.pool.taken, 0, "far's packets are back");
  }
}

/** Declares the tests. `make` makes a fresh pair; both ends get a host each, with a pool of its own. */
export function endConformance(name: string, make: () => EndPair | Promise<EndPair>): void {
  const test = (sentence: string, body: (bench: Bench) => Promise<void> | void) =>
    Deno.test(`${name}: ${sentence}`, async () => {
      await using bench = await new Bench(await make()).ready();
      await body(bench);
    });

  test("read() takes nothing while nothing has arrived", ({ near, far }) => {
    const batch = new PacketBatch();
    strictEqual(near.read(batch), 0);
    strictEqual(far.read(batch), 0);
    strictEqual(batch.length, 0);
    strictEqual(near.failure, undefined);
  });

  test("write() of an empty batch takes nothing", ({ near }) => {
    strictEqual(near.write(new PacketBatch()), 0);
  });

  test("packets of every length arrive as they were written", async (bench) => {
    const { near, far, nearHost, farHost, mtu, least } = bench;
    for (const length of [least, 20, 576, Math.min(1400, mtu), mtu]) {
      for (
        const [from, fromHost, to, toHost] of [[near, nearHost, far, farHost], [
          far,
          farHost,
          near,
          nearHost,
        ]] as const
      ) {
        const bytes = pattern(length);
        const batch = new PacketBatch();
        batch.push(fromHost.pool.from(bytes)!);
        strictEqual(from.write(batch), 1);
        strictEqual(batch.length, 0);
        const arrived = await receive(to, toHost, 1);
        deepStrictEqual(arrived[0], bytes);
      }
    }
  });

  test("a packet that was moved in its slot arrives as it is", async ({ near, far, nearHost, farHost }) => {
    const packet = nearHost.pool.from(pattern(100))!;
    packet.strip(40);
    packet.bytes[packet.offset] = 0x45;
    packet.prepend(8);
    packet.bytes[packet.offset] = 0x60;
    const expected = packet.data.slice();
    const batch = new PacketBatch();
    batch.push(packet);
    strictEqual(near.write(batch), 1);
    deepStrictEqual(await receive(far, farHost, 1), [expected]);
  });

  test("order is kept, in both directions", async ({ near, far, nearHost, farHost }) => {
    const [there, back] = await Promise.all([
      carry(near, nearHost, far, farHost, CARRIED),
      carry(far, farHost, near, nearHost, CARRIED),
    ]);
    const expected = Array.from({ length: CARRIED }, (_, i) => i);
    deepStrictEqual(there, expected);
    deepStrictEqual(back, expected);
  });

  test("read() fills a batch to its bound and leaves the rest", async ({ near, far, nearHost, farHost }) => {
    const batch = new PacketBatch();
    for (let i = 0; i < 10; i++) batch.push(numbered(nearHost.pool, i));
    await until(() => (near.write(batch), batch.length === 0), "10 packets were taken");
    const sequences: number[] = [];
    await until(() => {
      const few = new PacketBatch({ packets: 3 });
      const count = far.read(few);
      ok(count <= 3);
      strictEqual(count, few.length);
      sequences.push(...empty(few).map(sequenceOf));
      return sequences.length === 10;
    }, "10 packets arrived");
    deepStrictEqual(sequences, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    strictEqual(farHost.lost, 0);
  });

  test("read() appends, and leaves a full batch alone", async ({ near, far, nearHost, farHost }) => {
    const batch = new PacketBatch();
    batch.push(numbered(nearHost.pool, 7));
    near.write(batch);
    const full = new PacketBatch({ packets: 1 });
    const own = numbered(farHost.pool, 1);
    full.push(own);
    strictEqual(far.read(full), 0);
    strictEqual(full.length, 1);
    const roomy = new PacketBatch();
    full.moveTo(roomy);
    await until(() => far.read(roomy) > 0, "a packet arrived");
    strictEqual(roomy.packets[0], own);
    deepStrictEqual(empty(roomy).map(sequenceOf), [1, 7]);
  });

  test("read() takes nothing while the pool is empty, and loses nothing", async ({ near, far, nearHost, farHost }) => {
    const { pool } = farHost;
    const batch = new PacketBatch();
    batch.push(numbered(nearHost.pool, 3));
    const hoard: Packet[] = [];
    for (const length of [1, LARGE_ROOM]) {
      for (let packet; (packet = pool.take(length)) !== undefined;) hoard.push(packet);
    }
    const { wakes } = farHost;
    near.write(batch);
    await called(far, farHost, wakes);
    const got = new PacketBatch();
    strictEqual(far.read(got), 0);
    // The wait may have taken the signal: then it is the pool that has the loop look again.
    let breaths = 0;
    pool.onRoom = () => breaths++;
    for (const packet of hoard) pool.give(packet);
    ok(breaths > 0, "room woke the loop");
    pool.onRoom = undefined;
    deepStrictEqual((await receive(far, farHost, 1)).map(sequenceOf), [3]);
    strictEqual(farHost.lost, 0);
  });

  test("an arriving packet wakes the loop", async ({ near, nearHost, far, farHost }) => {
    const batch = new PacketBatch();
    const { wakes } = farHost;
    batch.push(numbered(nearHost.pool, 0));
    near.write(batch);
    await called(far, farHost, wakes);
    strictEqual((await receive(far, farHost, 1)).length, 1);
  });

  test("write() takes no more than fits, and wakes the loop when more does", async (bench) => {
    const { near, far, nearHost, farHost, overload } = bench;
    const batch = new PacketBatch();
    const sequences: number[] = [];
    let next = 0;
    let taken = 0;
    // Nothing is read and no turn is given: what is taken here, is queued.
    for (;;) {
      for (
        let packet;
        batch.length < 64 && (packet = tryNumbered(nearHost.pool, next)) !== undefined;
        next++
      ) {
        batch.push(packet);
      }
      const count = near.write(batch);
      taken += count;
      if (count === 0) break;
      ok(taken <= overload, "it is bounded");
    }
    ok(taken > 0 && batch.length > 0, "it is bounded by itself, not by the pool");
    const { wakes } = nearHost;
    while (sequences.length + nearHost.lost + farHost.lost < taken) {
      queuedOf(near);
      sequences.push(...(await receive(far, farHost, 1)).map(sequenceOf));
    }
    strictEqual(sequences.length + nearHost.lost + farHost.lost, taken);
    if (near.waits[0]!.waitable === undefined) await until(() => nearHost.wakes > wakes, "it woke the loop");
    await until(() => queuedOf(near) === 0, "nothing was queued");
    deepStrictEqual(sequences, sequences.toSorted((a, b) => a - b));
    for (const packet of batch) packet.pool.give(packet);
  });

  test("packets sent are packets received, dropped with a reason, or queued", async (bench) => {
    const { near, far, nearHost, farHost, overload } = bench;
    const batch = new PacketBatch();
    let next = 0;
    // The other side is not read until everything is written, or can be no more.
    const accounted = () => nearHost.lost + farHost.lost;
    const sequences: number[] = [];
    let idle = 0;
    while (next < overload && idle < 3) {
      for (
        let packet;
        batch.length < 64 && (packet = tryNumbered(nearHost.pool, next)) !== undefined;
        next++
      ) {
        batch.push(packet);
      }
      const before = near.queued;
      const count = near.write(batch);
      const isWaiting = () => !bench.keeps && count > 0 && queuedOf(near) >= Math.max(1, before);
      await until(() => !isWaiting(), "something was delivered");
      idle = count === 0 ? idle + 1 : 0;
    }
    const sent = next - batch.length;
    await until(() => {
      const got = new PacketBatch();
      far.read(got);
      sequences.push(...empty(got).map(sequenceOf));
      return sequences.length + accounted() + queuedOf(near) >= sent && near.queued === 0;
    }, `${sent} packets were accounted for`);
    strictEqual(sequences.length + accounted(), sent);
    deepStrictEqual(sequences, sequences.toSorted((a, b) => a - b));
    strictEqual(new Set(sequences).size, sequences.length);
    for (const packet of batch) packet.pool.give(packet);
  });

  test("close() twice is close() once, and nothing passes afterwards", async ({ near, nearHost, far, farHost }) => {
    const batch = new PacketBatch();
    for (let i = 0; i < 5; i++) batch.push(numbered(nearHost.pool, i));
    near.write(batch);
    for (const packet of batch) packet.pool.give(packet);
    batch.clear();
    await until(() => near.queued === 0, "nothing was queued");
    near.close();
    near.close();
    strictEqual(near.queued, 0);
    batch.push(numbered(nearHost.pool, 9));
    strictEqual(near.write(batch), 0);
    strictEqual(batch.length, 1);
    strictEqual(near.read(new PacketBatch()), 0);
    empty(batch);
    far.close();
    strictEqual(far.read(new PacketBatch()), 0);
    strictEqual(farHost.pool.taken, 0);
  });

  test("close() gives back what is queued, read or not", ({ near, nearHost, far, farHost }) => {
    const batch = new PacketBatch();
    for (let i = 0; i < 64; i++) batch.push(numbered(nearHost.pool, i));
    near.write(batch);
    near.close();
    far.close();
    for (const packet of batch) packet.pool.give(packet);
    strictEqual(nearHost.pool.taken, 0);
    strictEqual(farHost.pool.taken, 0);
  });

  test("an end whose other side is closed reports that where it can, and never throws", async (bench) => {
    const { near, nearHost, far, failsWithPeer } = bench;
    const { wakes } = nearHost;
    far.close();
    if (failsWithPeer) {
      await until(() => near.failure !== undefined, "it failed");
      ok(near.failure!.message.startsWith("Cannot "));
      if (near.waits[0]!.waitable === undefined) ok(nearHost.wakes > wakes, "it woke the loop");
    }
    const batch = new PacketBatch();
    batch.push(numbered(nearHost.pool, 0));
    near.write(batch);
    for (const packet of batch) packet.pool.give(packet);
    near.read(new PacketBatch());
    await until(() => near.queued === 0, "nothing was queued");
    if (!failsWithPeer) strictEqual(near.failure, undefined);
  });

  Deno.test(`${name}: close() works before attach()`, async () => {
    const pair = await make();
    pair.near.close();
    pair.far.close();
    await pair.gone?.();
  });

  test("two ends may share a pool", async () => {
    const pair = await make();
    const pool = new PacketPool({ small: 8, large: 1 });
    const [nearHost, farHost] = [new TestHost(pool), new TestHost(pool)];
    pair.near.attach(nearHost);
    pair.far.attach(farHost);
    await pair.ready?.();
    const batch = new PacketBatch();
    batch.push(numbered(pool, 5));
    strictEqual(pair.near.write(batch), 1);
    deepStrictEqual((await receive(pair.far, farHost, 1)).map(sequenceOf), [5]);
    pair.near.close();
    pair.far.close();
    await pair.gone?.();
    strictEqual(pool.taken, 0);
  });
}

/** Waits as the loop does: by the end's descriptor, or until it has woken the loop more often than before. */
async function called(end: TunnelEnd, host: TestHost, wakes: number): Promise<void> {
  const { waitable } = end.waits[0]!;
  if (waitable === undefined) return await until(() => host.wakes > wakes, "it woke the loop");
  using waiter = await openWaiter();
  await until(() => {
    waiter.clear();
    waiter.add(waitable, true, false);
    return waiter.wait(0);
  }, "the wait ended");
}

/** Number of packets that wait in an end, after its timers have run as the loop runs them. */
function queuedOf(end: TunnelEnd): number {
  if (end.due! <= 0) end.tick!();
  return end.queued;
}

/** Reads until `count` packets have arrived; returns copies. */
export async function receive(end: TunnelEnd, host: TestHost, count: number): Promise<Uint8Array[]> {
  const arrived: Uint8Array[] = [];
  const batch = new PacketBatch();
  await until(() => {
    end.read(batch);
    for (const packet of batch) {
      strictEqual(packet.pool, host.pool, "a packet of the loop's pool");
      strictEqual(packet.owner, batch, "a packet of the batch");
    }
    arrived.push(...empty(batch));
    return arrived.length >= count;
  }, `${count} packets arrived`);
  return arrived;
}

/** Writes numbered packets while the other side reads; returns the numbers that arrived. */
async function carry(
  from: TunnelEnd,
  fromHost: TestHost,
  to: TunnelEnd,
  toHost: TestHost,
  count: number,
): Promise<number[]> {
  const batch = new PacketBatch();
  const numbers: number[] = [];
  let next = 0;
  while (numbers.length < count) {
    for (let packet; next < count && batch.length < 16; next++) {
      if ((packet = tryNumbered(fromHost.pool, next)) === undefined) break;
      batch.push(packet);
    }
    from.write(batch);
    numbers.push(...(await receive(to, toHost, 1)).map(sequenceOf));
  }
  return numbers;
}

/** Carries packets of lengths around every limit, up to an MTU of 9,000 or more. */
export async function carryLengths(near: TunnelEnd, far: TunnelEnd, mtu: number): Promise<void> {
  const [nearHost, farHost] = [new TestHost(), new TestHost()];
  near.attach(nearHost);
  far.attach(farHost);
  for (const length of [1, 20, 1500, SMALL_ROOM, SMALL_ROOM + 1, 8999, 9000, mtu - 1, mtu]) {
    const bytes = pattern(length);
    const batch = new PacketBatch();
    batch.push(nearHost.pool.from(bytes)!);
    strictEqual(near.write(batch), 1);
    deepStrictEqual(await receive(far, farHost, 1), [bytes]);
  }
  near.close();
  far.close();
  deepStrictEqual([nearHost.lost, farHost.lost, nearHost.pool.taken, farHost.pool.taken], [0, 0, 0, 0]);
}

/** Bytes that look like an IPv4 packet in their first nibble, and differ from their neighbours. */
export function pattern(length: number): Uint8Array {
  const bytes = Uint8Array.from({ length }, (_, i) => i * 31 + length);
  bytes[0] = 0x45;
  return bytes;
}

function tryNumbered(pool: PacketPool, number: number): Packet | undefined {
  const packet = pool.from(pattern(SEQUENCE + 4));
  packet?.view.setUint32(packet.offset + SEQUENCE, number);
  return packet;
}

/** A packet with a number in it. */
export function numbered(pool: PacketPool, number: number): Packet {
  return tryNumbered(pool, number)!;
}

/** The number in a packet's bytes. */
export function sequenceOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(SEQUENCE);
}

/** Takes all packets out of a batch and gives them back; returns copies. */
export function empty(batch: PacketBatch): Uint8Array[] {
  const copies: Uint8Array[] = [];
  for (const packet of batch) {
    copies.push(packet.data.slice());
    packet.pool.give(packet);
  }
  batch.clear();
  return copies;
}
