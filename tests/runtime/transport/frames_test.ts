/** WebSocket frames, in memory. */

import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { Random } from "../../../lib/core/random.ts";
import { type FrameFault, FrameReader, FrameWriter, Opcode } from "../../../runtime/transport/_frames.ts";
import { BINARY, CONTINUATION, frame, PING, PONG, TEXT } from "../../kit/raw_websocket.ts";

/** Calls of a reader's handler, as text. */
class Heard {
  /** Whether messages are held. */
  full = false;
  readonly messages: Uint8Array[] = [];
  readonly texts: number[] = [];
  readonly controls: [Opcode, Uint8Array][] = [];

  binary(bytes: Uint8Array, offset: number, length: number): void {
    this.messages.push(bytes.slice(offset, offset + length));
  }

  text(length: number): void {
    this.texts.push(length);
  }

  control(opcode: Opcode, payload: Uint8Array): void {
    this.controls.push([opcode, payload.slice()]);
  }
}

/** Feeds a reader in chunks of random length; returns its fault. */
function feed(
  reader: FrameReader,
  bytes: Uint8Array,
  pieces: (left: number) => number,
): FrameFault | undefined {
  for (let at = 0; at < bytes.length;) {
    const count = Math.min(reader.room.length, Math.max(1, pieces(bytes.length - at)), bytes.length - at);
    ok(reader.room.length > 0, "there is always room");
    reader.room.set(bytes.subarray(at, at + count));
    at += count;
    const fault = reader.take(count, true);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

for (const masked of [false, true]) {
  Deno.test(`FrameReader reads ${masked ? "masked" : "plain"} messages whatever their fragments and the pieces that come`, () => {
    const random = new Random(masked ? 1 : 2);
    const byte = () => random.below(256);
    const parts = () => masked ? { key: [byte(), byte(), byte(), byte()] } : { key: undefined };
    for (let round = 0; round < 30; round++) {
      const heard = new Heard();
      const reader = new FrameReader(heard, masked);
      const messages: Uint8Array[] = [];
      const texts: number[] = [];
      const controls: [Opcode, Uint8Array][] = [];
      const stream: Uint8Array[] = [];
      for (let i = 0; i < 40; i++) {
        const length = [
          0,
          1,
          3,
          125,
          126,
          1400,
          random.below(3000),
          65_535,
        ][random.below(i % 10 === 0 ? 8 : 7)]!;
        const payload = new Uint8Array(length).map(byte);
        const isText = random.below(5) === 0;
        const cuts = Array.from({ length: random.below(4) }, () => random.below(length + 1)).sort((a, b) =>
          a - b
        );
        const ends = [...cuts, length];
        ends.forEach((end, n) => {
          const opcode = n > 0 ? CONTINUATION : isText ? TEXT : BINARY;
          const fin = n === ends.length - 1;
          stream.push(frame(opcode, payload.subarray(ends[n - 1] ?? 0, end), { ...parts(), fin }));
          if (random.below(3) > 0) return;
          const control = new Uint8Array(random.below(126)).map(byte);
          const kind = random.below(2) === 0 ? PING : PONG;
          stream.push(frame(kind, control, parts()));
          controls.push([kind as Opcode, control]);
        });
        if (isText) texts.push(length);
        else messages.push(payload);
      }
      strictEqual(feed(reader, join(stream), (left) => 1 + random.below(Math.min(left, 9000))), undefined);
      deepStrictEqual(heard.messages, messages);
      deepStrictEqual(heard.texts, texts);
      deepStrictEqual(heard.controls, controls);
    }
  });

  Deno.test(`FrameReader reads back what FrameWriter writes, ${masked ? "masked" : "plain"}, wherever it starts`, () => {
    const random = new Random(3);
    const writer = new FrameWriter(masked, 200_000);
    const buffer = writer.allocate().fill(0xa5);
    writer.use(buffer);
    for (const start of [0, 1, 2, 3, 5]) {
      const payloads = [0, 1, 2, 3, 4, 5, 7, 125, 126, 1400, 65_535].map((length) =>
        new Uint8Array(length).map(() => random.below(256))
      );
      let at = start;
      for (const payload of payloads) {
        const end = writer.write(at, Opcode.Binary, join([Uint8Array.of(9), payload]), 1, payload.length);
        strictEqual(end - at, writer.frameLength(payload.length));
        at = end;
      }
      const heard = new Heard();
      strictEqual(feed(new FrameReader(heard, masked), buffer.slice(start, at), (left) => left), undefined);
      deepStrictEqual(heard.messages, payloads);
    }
  });
}

Deno.test("FrameReader holds messages while there is no room, passes on earlier control frames, and keeps the order", () => {
  const heard = new Heard();
  const reader = new FrameReader(heard, true);
  const payloads = [1, 2, 3, 4].map((byte) => Uint8Array.of(byte));
  const stream = [frame(PING), ...payloads.map((payload) => frame(BINARY, payload))];
  heard.full = true;
  strictEqual(feed(reader, join(stream), (left) => left), undefined);
  deepStrictEqual([heard.messages, heard.controls.length, reader.isHeld], [[], 1, true]);
  heard.full = false;
  const binary = heard.binary.bind(heard);
  heard.binary = (bytes, offset, length) => {
    binary(bytes, offset, length);
    heard.full = heard.messages.length === 2;
  };
  strictEqual(reader.take(0, true), undefined);
  deepStrictEqual([heard.messages, reader.isHeld], [payloads.slice(0, 2), true]);
  strictEqual(reader.take(0, false), undefined);
  deepStrictEqual([heard.messages, reader.isHeld], [payloads, false]);
});

Deno.test("FrameReader takes any bytes without throwing, and never more than the longest packet", () => {
  const random = new Random(4);
  for (let round = 0; round < 3000; round++) {
    const heard = new Heard();
    const masked = random.below(2) === 0;
    const bytes = new Uint8Array(random.below(400)).map(() => random.below(256));
    // Most begin as frames do.
    for (let i = 0; i < bytes.length; i += 1 + random.below(30)) {
      bytes[i] = [0x82, 0x02, 0x00, 0x80, 0x89, 0x81][random.below(6)]!;
      if (i + 1 < bytes.length) bytes[i + 1] = (masked ? 0x80 : 0) | random.below(128);
    }
    const fault = feed(new FrameReader(heard, masked), bytes, () => 1 + random.below(50));
    if (fault !== undefined) ok([1002, 1009].includes(fault.code) && fault.length <= 2 * 65_536);
    for (const { length } of heard.messages) ok(length <= 65_535);
  }
});

Deno.test("FrameReader takes 1,024 fragments and no more, whatever is in them", () => {
  for (const payload of [new Uint8Array(0), new Uint8Array(1)]) {
    const heard = new Heard();
    const reader = new FrameReader(heard, true);
    const all = Array.from(
      { length: 1024 },
      (_, i) => frame(i === 0 ? BINARY : CONTINUATION, payload, { fin: i === 1023 }),
    );
    strictEqual(feed(reader, join(all), (left) => left), undefined);
    deepStrictEqual(heard.messages, [new Uint8Array(1024 * payload.length)]);
    all[1023] = frame(CONTINUATION, payload, { fin: false });
    const fault = feed(
      new FrameReader(heard, true),
      join([...all, frame(CONTINUATION, payload)]),
      (left) => left,
    );
    strictEqual(fault?.code, 1009);
  }
});

Deno.test("FrameWriter masks each frame with an unpredictable key", () => {
  const writer = new FrameWriter(true, 100);
  const buffer = writer.allocate();
  writer.use(buffer);
  const keys = new Set<string>();
  for (let i = 0; i < 3000; i++) {
    writer.write(0, Opcode.Binary, new Uint8Array(4), 0, 4);
    keys.add(buffer.slice(2, 6).join());
  }
  ok(keys.size > 2990, `${keys.size} keys`);
});
