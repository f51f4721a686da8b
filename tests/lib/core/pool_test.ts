/** The pool's memory: no script can detach it, and other interfaces accept it. */

import assert from "node:assert/strict";
import { LARGE_ROOM, PacketPool, SMALL_ROOM } from "../../../lib/core/mod.ts";

const pool = new PacketPool({ small: 2, large: 1 });
const bytes = pool.from(new TextEncoder().encode("a packet"))!.data as Uint8Array<ArrayBuffer>;

/** Operations of scripts that transfer or change a buffer. */
const TRANSFERS: Record<string, () => unknown> = {
  "ArrayBuffer.transfer()": () => bytes.buffer.transfer(),
  "ArrayBuffer.transferToFixedLength()": () => bytes.buffer.transferToFixedLength(),
  "ArrayBuffer.resize()": () => bytes.buffer.resize(0),
  "structuredClone()": () => structuredClone(bytes, { transfer: [bytes.buffer] }),
  "postMessage()": () => {
    const { port1, port2 } = new MessageChannel();
    try {
      port1.postMessage(bytes, [bytes.buffer]);
    } finally {
      port1.close();
      port2.close();
    }
  },
  "a stream of bytes": () =>
    new ReadableStream({ type: "bytes", start: (controller) => controller.enqueue(bytes) }),
  "a stream's reader with its own buffer": () =>
    new ReadableStream({ type: "bytes", pull: (controller) => controller.enqueue(new Uint8Array(1)) })
      .getReader({ mode: "byob" }).read(bytes),
};

for (const [what, transfer] of Object.entries(TRANSFERS)) {
  Deno.test(`PacketPool.bytes cannot be transferred by ${what}`, async () => {
    await assert.rejects(async () => await transfer(), TypeError);
    assert.equal(new TextDecoder().decode(bytes), "a packet");
  });
}

Deno.test("Packet.data is accepted where a script passes bytes on", async () => {
  assert.equal(new TextDecoder().decode(bytes), "a packet");
  assert.equal(await new Response(bytes).text(), "a packet");
  assert.equal(await new Blob([bytes]).text(), "a packet");
  assert.equal((await crypto.subtle.digest("SHA-256", bytes)).byteLength, 32);
  assert.equal(new TextDecoder().decode(structuredClone(bytes)), "a packet");
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  assert.ok((await new Response(stream).bytes()).length > 0);
  const copy = bytes.slice();
  assert.equal(structuredClone(copy, { transfer: [copy.buffer] }).length, 8);
  assert.equal(
    crypto.getRandomValues(pool.from(new Uint8Array(8))!.data as Uint8Array<ArrayBuffer>).length,
    8,
  );
});

Deno.test("PacketPool reserves memory that the system backs when it is used", () => {
  const before = Deno.memoryUsage().rss;
  const pools = Array.from({ length: 16 }, () => new PacketPool());
  const reserved = pools.reduce((sum, { bytes }) => sum + bytes.length, 0);
  // Handles are made at once, and take some 0.5 KiB each.
  assert.ok(Deno.memoryUsage().rss - before < reserved / 2);
  assert.ok(pools.every(({ bytes }) => bytes[0] === 0));
});

Deno.test("PacketPool.holds() is false for lengths that no slot has", () => {
  const small = new PacketPool({ small: 1, large: 0 });
  assert.deepEqual([SMALL_ROOM, SMALL_ROOM + 1, LARGE_ROOM].map((length) => small.holds(length)), [
    true,
    false,
    false,
  ]);
  const large = new PacketPool({ small: 0, large: 1 });
  large.take(LARGE_ROOM);
  assert.deepEqual([SMALL_ROOM, LARGE_ROOM, LARGE_ROOM + 1].map((length) => large.holds(length)), [
    false,
    true,
    false,
  ]);
});

/** Arrays that say something else than they have. */
class Liar extends Uint8Array {
  override get length(): number {
    return 4;
  }
  override get byteLength(): number {
    return 4;
  }
  static get [Symbol.species](): Uint8ArrayConstructor {
    return new Proxy(Uint8Array, { construct: () => new Uint8Array(100_000) });
  }
}

Deno.test("PacketPool.from() copies the bytes of an array, whatever its class overrides", () => {
  const pool = new PacketPool({ small: 3, large: 1 });
  pool.bytes.fill(0xa5);
  const short = pool.from(new Liar(10))!;
  assert.deepEqual([short.length, short.tailroom], [10, SMALL_ROOM - 10]);
  const long = pool.from(new Liar(2000))!;
  assert.equal(long.length, 2000);
  assert.equal(pool.from(Object.defineProperty(new Uint8Array(70_000), "length", { value: 4 })), undefined);
  for (const slot of pool.packets) {
    if (slot !== short && slot !== long) assert.ok(slot.bytes[slot.slotStart] === 0xa5);
  }
  for (const other of [new Proxy(new Uint8Array(4), {}), new Uint16Array(4), [1], "text", null, undefined]) {
    assert.throws(
      () => pool.from(other as Uint8Array),
      /^TypeError: Cannot create a packet: data must be a Uint8Array, got /,
    );
  }
});
