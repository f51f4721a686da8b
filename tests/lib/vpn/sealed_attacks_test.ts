/** Attacks on the sealed protocol that need more than a bad datagram: wrong clocks, old states, a hostile client. */

import { deepEqual, equal, ok } from "node:assert/strict";
import { PacketPool } from "@warren/tunnel/core";
import { PeerDrop, SealedDrop } from "@warren/tunnel/vpn";
import { fakeCryptography, OPEN_KEYS } from "../../kit/fake_cryptography.ts";
import { Random } from "../../../lib/core/random.ts";
import { type Datagram, endpoint, KEY, Machine, numberIn, packet, START } from "./_machine.ts";

const SECOND = 1000;
const HOUR = 3600 * SECOND;

const UP = (number: number) => packet("10.9.0.2", "10.9.0.1", number);

function client(wall = START): Machine {
  return new Machine(fakeCryptography(1), { role: "connect", key: KEY }, { wall });
}

function server(seed = 2): Machine {
  return new Machine(fakeCryptography(seed), { role: "listen", key: KEY }, { address: 2 });
}

/** Sends a packet each second, and returns the seconds until one arrives. */
function secondsUntilHeard(from: Machine, to: Machine): number {
  for (let seconds = 0; seconds < 1000; seconds++) {
    const { packets, datagrams } = to.receive(...from.send(UP(seconds)));
    from.receive(...datagrams);
    if (packets.length > 0) return seconds;
    for (const machine of [from, to]) machine.advance(SECOND);
  }
  return Infinity;
}

Deno.test("Sealed recovers when a clock that was far ahead is set right, and never repeats a session", () => {
  for (
    const [ahead, limit] of [[HOUR, 11], [24 * HOUR, 11], [200 * SECOND, 11], [100 * SECOND, 0]] as const
  ) {
    const [one, other] = [client(START + ahead), server()];
    const sessions = new Set<string>();
    for (let i = 0; i < 30; i++) {
      for (const { bytes } of one.send(UP(i))) sessions.add(bytes.subarray(4, 16).toHex());
      one.advance(10_001);
      other.advance(10_001);
    }
    equal(sessions.size, 30);
    one.wall = other.wall;
    const seconds = secondsUntilHeard(one, other);
    ok(seconds <= limit, `${ahead} ms ahead: ${seconds} s`);
  }
});

Deno.test("Sealed accepts no replay when both clocks are set back and forth", () => {
  const [one, other] = [client(), server()];
  const recorded: Datagram[] = [];
  for (let i = 0; i < 20; i++) {
    const datagrams = one.send(UP(i));
    recorded.push(...datagrams);
    const received = other.receive(...datagrams);
    deepEqual(received.packets.map(numberIn), [i]);
    one.receive(...received.datagrams);
    for (const machine of [one, other]) {
      machine.advance(11 * SECOND);
      machine.wall += i % 2 === 0 ? 2 * HOUR : -2 * HOUR;
    }
    deepEqual(other.receive(...recorded).packets, []);
  }
});

Deno.test("Sealed.restore() of an older state, while packets flow, accepts no datagram again", () => {
  const [one, other] = [client(), server()];
  const recorded: Datagram[] = [];
  const states: unknown[] = [];
  for (let i = 0; i < 4; i++) {
    const datagrams = [...one.send(UP(i)), ...one.send(UP(i))];
    recorded.push(...datagrams);
    equal(other.receive(datagrams[0]!).packets.length + other.receive(datagrams[1]!).packets.length, 2);
    states.push(other.sealed.save());
    for (const machine of [one, other]) machine.advance(11 * SECOND);
  }
  for (const state of states) {
    other.sealed.restore(state);
    deepEqual(other.receive(...recorded).packets, []);
  }
  // A fresh process that gets the newest state, then an older one.
  const fresh = server(3);
  fresh.advance(44 * SECOND);
  for (const state of states.toReversed()) fresh.sealed.restore(state);
  deepEqual(fresh.receive(...recorded).packets, []);
  deepEqual(fresh.receive(...one.send(UP(9))).packets.map(numberIn), [9]);
});

Deno.test("Sealed.restore() leaves the connecting side the address in its options", () => {
  const open = (address: number) => {
    const peers = [{ name: "server", allowed: ["0.0.0.0/0"], key: KEY, endpoint: endpoint(address) }];
    return new Machine(fakeCryptography(address), { role: "connect", peers });
  };
  const moved = open(5);
  moved.sealed.restore(open(4).sealed.save());
  equal(moved.send(UP(1))[0]!.dst, 5);
});

Deno.test("Sealed delivers a withheld datagram of the session before, which does not divert the peer's packets", () => {
  const [one, other] = [client(), server()];
  other.receive(...one.send(UP(1)));
  const [withheld] = one.send(UP(2));
  for (const machine of [one, other]) machine.advance(11 * SECOND);
  other.receive(...one.send(UP(3)));
  equal(other.stats.counters.sessions, 2);
  deepEqual(other.receive({ ...withheld!, src: 66 }).packets.map(numberIn), [2]);
  equal(other.send(packet("10.9.0.1", "10.9.0.2"))[0]!.dst, one.address);
});

Deno.test("Sealed drops counters of 2^53 and above before it opens anything", () => {
  const [one, other] = [client(), server()];
  const [datagram] = one.send(UP(1));
  other.receive(datagram!);
  for (
    const [high, reason] of [[2 ** 21, "Malformed"], [2 ** 32 - 1, "Malformed"], [
      2 ** 21 - 1,
      "NotAuthentic",
    ]] as const
  ) {
    const bytes = datagram!.bytes.slice();
    new DataView(bytes.buffer).setUint32(16, high);
    const before = other.stats.dropped[SealedDrop[reason]] ?? 0;
    deepEqual(other.receive({ bytes, src: 1 }).packets, []);
    equal(other.stats.dropped[SealedDrop[reason]], before + 1);
  }
});

Deno.test("Sealed keeps the keys of three sessions per peer, however many there were", () => {
  const open = OPEN_KEYS.size;
  const [one, other] = [client(), server()];
  for (let i = 0; i < 50; i++) {
    one.receive(...other.receive(...one.send(UP(i))).datagrams);
    for (const machine of [one, other]) machine.advance(11 * SECOND);
  }
  ok(other.stats.counters.sessions! >= 50);
  equal(OPEN_KEYS.size - open, 6);
  for (const machine of [one, other]) machine.sealed.close();
  equal(OPEN_KEYS.size, open);
});

Deno.test("Sealed tries at most 1000 unknown sessions per second of all peers together, after a burst of 500", () => {
  const keys = Array.from({ length: 40 }, (_, i) => KEY.map((byte) => byte ^ i + 1));
  const peers = keys.map((key, i) => ({ name: `peer ${i}`, allowed: [], key }));
  const hub = new Machine(fakeCryptography(1), { role: "listen", peers });
  // Genuine key ids, and sessions that were never started.
  const forgers = peers.map((peer) => new Machine(fakeCryptography(2), { role: "connect", peers: [peer] }));
  const forged = forgers.map((forger) => forger.send()[0]!.bytes);
  for (let round = 0; round < 400; round++) {
    hub.receive(...forged.map((known) => {
      const bytes = known.slice();
      new DataView(bytes.buffer).setUint32(12, round + 1);
      return { bytes, src: 66 };
    }));
    hub.advance(5);
  }
  const tried = hub.stats.dropped[SealedDrop.NotAuthentic]!;
  ok(tried > 2000 && tried <= 2500, `${tried}`);
});

Deno.test("Sealed hears 1000 clients again within seconds of the server's restart", () => {
  const peers = Array.from({ length: 1000 }, (_, i) => ({
    name: `client ${i}`,
    allowed: [`10.10.${i >> 8}.${i & 255}`],
  }));
  const open = (seed: number) => new Machine(fakeCryptography(seed), { role: "listen", key: KEY, peers });
  const pool = new PacketPool({ small: 8, large: 0 });
  const clients = peers.map(({ name }, i) =>
    new Machine(fakeCryptography(100 + i), { role: "connect", key: KEY, name }, { pool })
  );
  let server = open(1);
  let seconds = 0;
  /** Each client sends a packet per second until all are heard; returns the seconds. */
  const connect = (): number => {
    const heard = new Set<number>();
    for (const start = seconds; heard.size < clients.length; seconds++) {
      ok(seconds < start + 20, `${heard.size} clients were heard`);
      for (const [i, client] of clients.entries()) {
        const src = peers[i]!.allowed[0]!;
        const { packets, datagrams } = server.receive(...client.send(packet(src, "10.9.0.1", i)));
        for (const bytes of packets) heard.add(numberIn(bytes));
        client.receive(...datagrams);
        client.advance(SECOND);
      }
      server.advance(SECOND);
      if (heard.size === clients.length) return seconds - start;
    }
    return Infinity;
  };
  ok(connect() <= 2);
  // Sessions of a minute ago are still within the clock error; those of three minutes ago are refused.
  for (const age of [60, 180]) {
    for (const machine of [server, ...clients]) machine.advance(age * SECOND);
    seconds += age;
    server = open(age);
    server.advance(seconds * SECOND);
    const took = connect();
    ok(took <= 12, `${took} s`);
  }
});

/** Two clients of a server, one of them hostile: it knows its own key, and sees and changes all datagrams. */
function hub(seed: number): void {
  const random = new Random(seed);
  const keys = [1, 2].map((n) => KEY.map((byte) => byte ^ n));
  const names = ["office", "laptop"];
  const allowed = [["10.9.0.0/16"], ["10.9.0.2"]];
  const peers = names.map((name, i) => ({ name, key: keys[i]!, allowed: allowed[i]! }));
  const hub = new Machine(fakeCryptography(seed), { role: "listen", peers }, { address: 3 });
  const clients = keys.map((key, i) =>
    new Machine(fakeCryptography(seed + 1 + i), { role: "connect", key }, { address: 1 + i })
  );
  const seen: Datagram[] = [];
  const arrived = new Set<string>();
  let spoofed = 0;
  /** Passes a datagram to the hub, and checks the sender of what it reads. */
  const deliver = (datagram: Datagram) => {
    const before = names.map((name) => hub.sealed.peers.byName(name)!.packetsIn);
    const { packets, datagrams } = hub.receive(datagram);
    for (const bytes of packets) {
      const sender = hub.sealed.peers.byName(names[0]!)!.packetsIn > before[0]! ? 0 : 1;
      const isLaptop = bytes.subarray(12, 16).toHex() === "0a090002";
      equal(isLaptop, sender === 1, "a client sent from the other's address");
      equal(numberIn(bytes) % 2, sender, "a client's packet came as the other's");
      const text = bytes.toHex();
      ok(!arrived.has(text), "a packet arrived twice");
      arrived.add(text);
    }
    seen.push(...datagrams);
    for (const answer of datagrams) clients[answer.dst - 1]?.receive(answer);
    ok(hub.pipeline.balanced);
  };
  for (let step = 0; step < 4000; step++) {
    const sender = random.below(2);
    const src = ["10.9.0.1", "10.9.0.2", "192.0.2.1"][random.below(3)]!;
    const mayPass = src === (sender === 0 ? "10.9.0.1" : "10.9.0.2");
    if (!mayPass) spoofed++;
    seen.push(...clients[sender]!.send(packet(src, "10.9.77.77", 2 * step + sender)));
    for (let i = random.below(4); i > 0; i--) {
      const datagram = seen[seen.length - 1 - random.below(Math.min(50, seen.length))]!;
      const bytes = datagram.bytes.slice();
      const other = seen[random.below(seen.length)]!;
      if (random.below(4) === 0) bytes.set(other.bytes.subarray(0, 4)); // another's key id
      if (random.below(8) === 0) bytes.set(other.bytes.subarray(4, 16), 4); // another's session
      if (random.below(8) === 0) bytes[random.below(bytes.length)]! ^= 1 << random.below(8);
      const end = random.below(8) === 0 ? random.below(bytes.length) : bytes.length;
      const to = random.below(6) === 0 ? clients[random.below(2)]! : undefined;
      const hostile = { ...datagram, bytes: bytes.subarray(0, Math.max(1, end)), src: 1 + random.below(3) };
      if (to === undefined) deliver(hostile);
      else if (datagram.src !== 3) deepEqual(to.receive(hostile).packets, []);
    }
    if (seen.length > 4000) seen.splice(0, 2000);
    for (const machine of [hub, ...clients]) machine.advance(random.below(200));
    if (random.below(200) === 0) hub.wall += (random.below(60) - 30) * SECOND;
  }
  const dropped = hub.stats.dropped;
  ok(arrived.size > 500 && spoofed > 2000, `${arrived.size} ${spoofed}`);
  for (const reason of [PeerDrop.SpoofedSource, SealedDrop.Replayed, SealedDrop.NotAuthentic]) {
    ok(dropped[reason]! > 100, reason);
  }
}

Deno.test("Sealed takes no packet of a client from another's address, as another's, or twice", () => {
  for (let seed = 1; seed <= 3; seed++) hub(seed * 10);
});
