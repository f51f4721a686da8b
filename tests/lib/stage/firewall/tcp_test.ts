/**
 * A TCP connection of two hosts, over links that lose, delay and repeat segments on both sides of the firewall:
 * segments of RFC 9293 pass, and those that an off-path attacker guesses do not.
 *
 *     host 0 ──loses, reorders──► firewall ──loses, reorders──► host 1, and back
 */

import { deepEqual, equal, ok } from "node:assert/strict";
import { Direction } from "@warren/tunnel/core";
import { Firewall } from "@warren/tunnel/firewall";
import { encodePacket } from "../../../kit/packet_text.ts";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { Random } from "../../../../lib/core/random.ts";

const SCALE = 3;
const ENDS = ["10.9.0.1:5000", "192.0.2.1:80"];

/** One host's half of a connection. */
interface Host {
  /** First number that is not acknowledged, and next number to send. */
  oldest: number;
  next: number;
  /** Last number that it may send: what the other side has offered. */
  limit: number;
  /** Next number that it expects. */
  expected: number;
  /** Bytes of data left, and the number of its FIN once sent. */
  left: number;
  fin: number;
}

interface Wire {
  readonly from: number;
  readonly flags: string;
  readonly seq: number;
  readonly ack: number;
  readonly length: number;
  readonly window: number;
}

const u32 = (number: number) => number >>> 0;
const behind = (one: number, other: number) => one - other | 0;

/** Sends a segment; returns whether it passed. */
function pass(test: TestPipeline, { from, flags, seq, ack, length, window }: Wire, options = ""): boolean {
  const numbers = `${flags} seq ${u32(seq)} ack ${flags === "S" ? 0 : u32(ack)} window ${window}`;
  const text = `tcp ${ENDS[from]} > ${ENDS[1 - from]} ${numbers} ${options} payload ${length}`;
  test.send(from === 0 ? Direction.Outbound : Direction.Inbound, encodePacket(text));
  test.settle();
  const { far, device } = test.receive();
  return far.length + device.length === 1;
}

Deno.test("Firewall passes a connection over lossy links whole, and no guessed segment", () => {
  let [passed, guessed, lucky] = [0, 0, 0];
  for (let seed = 1; seed <= 60; seed++) {
    const random = new Random(seed);
    const test = new TestPipeline(new Firewall());
    const starts = [random.below(2 ** 31) * 2, random.below(2 ** 31) * 2];
    const window = 1000 + random.below(4000);
    ok(pass(test, { from: 0, flags: "S", seq: starts[0]!, ack: 0, length: 0, window }, `wscale ${SCALE}`));
    const synAck = { from: 1, flags: "SA", seq: starts[1]!, ack: starts[0]! + 1, length: 0, window };
    ok(pass(test, synAck, `wscale ${SCALE}`));
    ok(pass(test, { from: 0, flags: "A", seq: starts[0]! + 1, ack: starts[1]! + 1, length: 0, window }));
    const hosts: Host[] = [0, 1].map((side) => ({
      oldest: starts[side]! + 1,
      next: starts[side]! + 1,
      limit: starts[side]! + 1 + (side === 0 ? window : window << SCALE),
      expected: starts[1 - side]! + 1,
      left: 50_000,
      fin: -1,
    }));
    const before: Wire[] = [];
    const after: Wire[] = [];
    const send = (from: number, flags: string, seq: number, length: number) =>
      before.push({ from, flags, seq, ack: hosts[from]!.expected, length, window });
    for (let step = 0; step < 4000; step++) {
      const from = random.below(2);
      const host = hosts[from]!;
      const isWaiting = behind(host.next, host.oldest) > 0;
      switch (random.below(5)) {
        case 0: {
          const room = Math.min(1000, host.left, behind(host.limit, host.next));
          if (room > 0 && host.fin < 0) {
            send(from, "A", host.next, room);
            host.next += room;
            host.left -= room;
          } else if (host.left === 0 && host.fin < 0) {
            host.fin = host.next;
            send(from, "FA", host.next++, 0);
          }
          break;
        }
        case 1:
          // Retransmits the oldest segment.
          if (host.oldest === host.fin) send(from, "FA", host.fin, 0);
          else if (isWaiting) {
            const end = host.fin < 0 ? host.next : host.fin;
            send(from, "A", host.oldest, Math.min(500, end - host.oldest));
          }
          break;
        case 2: {
          const [wire] = before.splice(random.below(Math.min(before.length, 8)), 1);
          if (wire === undefined || random.below(10) === 0) break;
          // Segments that the receiver has had for more than a window may be dropped.
          const isOld = wire.seq + wire.length < hosts[1 - wire.from]!.expected;
          ok(pass(test, wire) || isOld, `seed ${seed}, step ${step}: ${JSON.stringify([wire, starts])}`);
          passed++;
          if (random.below(10) > 0) after.push(wire);
          break;
        }
        case 3: {
          const [wire] = after.splice(random.below(Math.min(after.length, 8)), 1);
          if (wire === undefined) break;
          const receiver = hosts[1 - wire.from]!;
          if (wire.ack > receiver.oldest) receiver.oldest = wire.ack;
          receiver.limit = Math.max(receiver.limit, wire.ack + (wire.window << SCALE));
          const end = wire.seq + wire.length + (wire.flags === "FA" ? 1 : 0);
          if (wire.seq <= receiver.expected && end > receiver.expected) receiver.expected = end;
          if (end > wire.seq) send(1 - wire.from, "A", receiver.next, 0);
          break;
        }
        default: {
          const seq = random.below(2 ** 31) * 2 + random.below(2);
          const flags = ["R", "A", "FA", "RA", "SA"][random.below(5)]!;
          const forged = { from, flags, seq, ack: random.below(2 ** 31), length: 1, window: 1 };
          if (flags === "SA") break;
          guessed++;
          if (pass(test, { ...forged, length: flags.includes("R") ? 0 : 1 })) lucky++;
        }
      }
    }
    equal(test.balanced, true);
  }
  ok(passed > 20_000, `${passed} passed`);
  // A reset must hit a window of 2^15 in 2^32; other segments must guess both numbers.
  deepEqual([guessed > 20_000, lucky < 10], [true, true], `${lucky} of ${guessed} guesses`);
});
