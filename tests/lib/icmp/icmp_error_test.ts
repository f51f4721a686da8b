/** Errors and resets: quoting, turning round, and any bytes at all. */

import { equal, ok, throws } from "node:assert/strict";
import { Direction, type Packet, type PacketBatch, type Stage, type StageContext } from "@warren/tunnel/core";
import { Icmpv4 } from "@warren/tunnel/icmpv4";
import { Icmpv6 } from "@warren/tunnel/icmpv6";
import { IcmpError, IcmpErrors, type IcmpErrorsOptions } from "@warren/tunnel/icmp_error";
import { Tcp } from "@warren/tunnel/tcp";
import { Udp } from "@warren/tunnel/udp";
import { encodePacket, formatPacket } from "../../kit/packet_text.ts";
import { TestPipeline } from "../../kit/pipeline.ts";
import { Random } from "../../../lib/core/random.ts";
import { encodeIp, hex, makePartial, packetOf, wrongChecksum } from "../../kit/packets.ts";
import { copy } from "../../../lib/split/copy.ts";

/** Answers each packet with what is asked for; -1: a reset. */
class Answer implements Stage {
  readonly name = "answer";
  readonly errors: IcmpErrors;
  error: IcmpError | -1 = IcmpError.TimeExceeded;
  /** Changes a packet before it is answered. */
  before: (packet: Packet) => void = () => {};

  constructor(options: IcmpErrorsOptions = {}) {
    this.errors = new IcmpErrors(options);
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    for (const packet of batch) {
      this.before(packet);
      if (this.error < 0) this.errors.reset(packet, context, "closed");
      else this.errors.answer(packet, this.error as IcmpError, context, "closed", 1400);
    }
  }
}

function answersTo(stage: Answer, bytes: Uint8Array): Uint8Array[] {
  const test = new TestPipeline(stage);
  test.send(Direction.Outbound, bytes);
  test.settle();
  const { far, device } = test.receive();
  equal(far.length, 0);
  ok(test.balanced);
  return device;
}

for (const version of [4, 6] as const) {
  Deno.test(`IcmpErrors quotes an IPv${version} packet with a partial checksum completed`, () => {
    const packet = packetOf(new Uint8Array(1001).map((_, i) => i * 7));
    Tcp.encode(packet, { srcPort: 5000, dstPort: 80, seq: 1, flags: Tcp.Ack });
    encodeIp(packet, version, 6);
    const finished = packet.data.slice();
    const header = version === 4 ? 20 : 40;
    makePartial(packet, packet.offset + header, 16);
    const stage = new Answer();
    stage.before = (given) => {
      given.checksumStart = header;
      given.checksumOffset = 16;
    };
    const [answer] = answersTo(stage, packet.data);
    const quoted = answer!.subarray(header + 8);
    equal(quoted.length, version === 4 ? 548 : finished.length);
    equal(hex(quoted), hex(finished.subarray(0, quoted.length)));
    equal(wrongChecksum(answer!), "");
  });

  Deno.test(`IcmpErrors answers an IPv${version} super-packet with an error about its first segment`, () => {
    const packet = packetOf(new Uint8Array(1500).map((_, i) => i * 7));
    Udp.encode(packet, { srcPort: 5000, dstPort: 53 });
    encodeIp(packet, version, 17);
    packet.segmentSize = 300;
    const [first] = copy(packet);
    const stage = new Answer();
    stage.before = (given) => void (given.segmentSize = 300);
    const [answer] = answersTo(stage, packet.data);
    equal(hex(answer!.subarray(version === 4 ? 28 : 48)), hex(first!));
    equal(wrongChecksum(answer!), "");
    equal(stage.errors.answered, 1);
  });

  Deno.test(`IcmpErrors resets a whole IPv${version} super-packet`, () => {
    const packet = packetOf(new Uint8Array(1500));
    Tcp.encode(packet, { srcPort: 5000, dstPort: 80, seq: 1, flags: Tcp.Fin });
    encodeIp(packet, version, 6);
    const stage = new Answer();
    stage.error = -1;
    stage.before = (given) => void (given.segmentSize = 300);
    const [answer] = answersTo(stage, packet.data);
    ok(formatPacket(answer!).includes(" RA ack 1502"), formatPacket(answer!));
  });
}

Deno.test("IcmpErrors does not answer a fragment with a reset, since the length of its segment is unknown", () => {
  const stage = new Answer();
  stage.error = -1;
  stage.before = (packet) => void ([packet.checksumStart, packet.checksumOffset] = [20, 16]);
  const header = "13880050000000070000000050020000ffff0000";
  equal(
    answersTo(stage, encodePacket(`ip 10.9.0.1 > 192.0.2.1 protocol 6 ident 7 more bytes ${header}00000000`))
      .length,
    0,
  );
  equal(stage.errors.suppressed, 1);
});

Deno.test("IcmpErrors drops a super-packet that cannot be segmented", () => {
  const stage = new Answer();
  stage.before = (packet) => void (packet.segmentSize = 300);
  equal(answersTo(stage, encodePacket("ip 10.9.0.1 > 192.0.2.1 protocol 253 payload 900")).length, 0);
  equal(stage.errors.suppressed, 1);
});

Deno.test("IcmpErrors makes space for its headers when the headroom is used up", () => {
  const bytes = encodePacket("udp [fd09::1]:5000 > [2001:db8::1]:53 payload 1400");
  const stage = new Answer();
  stage.before = (packet) => {
    packet.bytes.copyWithin(packet.slotStart, packet.offset, packet.offset + packet.length);
    packet.offset = packet.slotStart;
  };
  const [answer] = answersTo(stage, bytes);
  equal(hex(answer!.subarray(48)), hex(bytes.subarray(0, 1232)));
  equal(wrongChecksum(answer!), "");
});

Deno.test("IcmpErrors sends a packet back to the peer that it came from", () => {
  const stage = new Answer();
  let to = 0;
  stage.before = (packet) => {
    packet.from = 7;
    packet.to = 3;
  };
  const watch: Stage = { name: "watch", inbound: (batch) => void (to = batch.packets[0]!.to) };
  const test = new TestPipeline(watch, stage);
  test.send(Direction.Outbound, encodePacket('udp 10.9.0.1:5000 > 192.0.2.1:53 "hello"'));
  test.settle();
  equal(to, 7);
});

Deno.test("IcmpErrors rejects wrong options", () => {
  throws(() => new IcmpErrors({ address: "10.9.0" }), SyntaxError);
  throws(() => new IcmpErrors({ address: ["10.9.0.1", "10.9.0.2"] }), TypeError);
  throws(() => new IcmpErrors({ address: "ff02::1" }), TypeError);
  throws(() => new IcmpErrors({ address: "127.0.0.1" }), TypeError);
  throws(() => new IcmpErrors({ ratePerSecond: 0 }), RangeError);
  throws(() => new IcmpErrors({ burst: 0.5 }), RangeError);
  throws(() => new IcmpErrors({ perDestination: { ratePerSecond: NaN, burst: 1 } }), RangeError);
});

const VALID = [
  'udp 10.9.0.1:5000 > 192.0.2.1:53 "hello"',
  "tcp 10.9.0.1:5000 > 192.0.2.1:80 A seq 7 ack 1000 payload 600",
  "icmp 10.9.0.1 > 192.0.2.1 type 8 id 7 seq 1 payload 56",
  "ip 10.9.0.1 > 192.0.2.1 protocol 17 ident 7 more payload 24",
  "udp [fd09::1]:5000 > [2001:db8::1]:53 payload 1400",
  "tcp [fd09::1]:5000 > [2001:db8::1]:80 S seq 7",
  "icmp fd09::1 > 2001:db8::1 type 128 id 7 seq 1 payload 8",
  "ip fd09::1 > 2001:db8::1 protocol 17 ident 7 more payload 24",
].map(encodePacket);

Deno.test("IcmpErrors never throws on any bytes, and its answers are valid and not answered again", () => {
  const seed = 0x1c3b;
  const random = new Random(seed);
  const stage = new Answer({ ratePerSecond: 1e9, burst: 1e9 });
  const test = new TestPipeline(stage);
  let answers = 0;
  for (let i = 0; i < 20_000; i++) {
    const bytes = VALID[random.below(VALID.length)]!.slice(
      0,
      random.below(8) === 0 ? random.below(60) : undefined,
    );
    for (let count = random.below(4); count > 0 && bytes.length > 0; count--) {
      bytes[random.below(Math.min(bytes.length, 64))] = random.below(256);
    }
    stage.error = random.below(10) - 1 as IcmpError | -1;
    stage.before = (packet) => {
      if (random.below(4) === 0) packet.segmentSize = random.below(700);
      if (random.below(4) === 0) {
        [packet.checksumStart, packet.checksumOffset] = [random.below(60), random.below(20)];
      }
    };
    test.send(Direction.Outbound, bytes);
    test.settle();
    const { far, device } = test.receive();
    equal(far.length, 0);
    for (const answer of device) {
      equal(wrongChecksum(answer), "", `seed ${seed}, packet ${i}: ${hex(bytes)}`);
      answers++;
      const again = packetOf(answer);
      if ((Icmpv4.of(again) ?? Icmpv6.of(again)) === undefined) continue;
      stage.before = () => {};
      const before = stage.errors.answered;
      test.send(Direction.Outbound, answer);
      test.settle();
      equal(stage.errors.answered, before, formatPacket(answer));
    }
    ok(test.balanced, `seed ${seed}, packet ${i}`);
  }
  ok(answers > 5000, `${answers} answers`);
});
