/** The sealed protocol between machines: sessions, replays, peers, restarts, roaming, keepalives. */

import { deepEqual, equal, match, notDeepEqual, ok, throws } from "node:assert/strict";
import { PeerDrop, Sealed, SealedDrop, type SealedOptions, type SealedPeerOptions } from "@warren/tunnel/vpn";
import { fakeCryptography, OPEN_KEYS } from "../../kit/fake_cryptography.ts";
import { hex } from "../../kit/packets.ts";
import { type Datagram, KEY, Machine, numberIn, packet, START } from "./_machine.ts";

const OVERHEAD = 40;
const SECOND = 1000;
const MINUTE = 60 * SECOND;

/** Returns a client and a server with the same key, which have greeted each other. */
function pair(options: Partial<SealedOptions> = {}): { client: Machine; server: Machine } {
  const client = new Machine(fakeCryptography(1), { role: "connect", key: KEY, ...options });
  const server = new Machine(fakeCryptography(2), { role: "listen", key: KEY, ...options }, { address: 2 });
  return { client, server };
}

/** Passes the client's greeting, and the server's answer. */
function greet(client: Machine, server: Machine): void {
  client.receive(...server.receive(...client.send()).datagrams);
}

function numbers(packets: readonly Uint8Array[]): number[] {
  return packets.map(numberIn);
}

const UP = (number: number) => packet("10.9.0.2", "10.9.0.1", number);
const DOWN = (number: number) => packet("10.9.0.1", "10.9.0.2", number);

Deno.test("Sealed carries packets both ways, in the order sent, with 40 bytes more", () => {
  const { client, server } = pair();
  const [hello, ...rest] = client.send(UP(1), UP(2), UP(3));
  deepEqual([hello!.bytes.length, rest.map(({ bytes }) => bytes.length)], [
    UP(1).length + OVERHEAD,
    Array(2).fill(UP(1).length + OVERHEAD),
  ]);
  const { packets, datagrams } = server.receive(hello!, ...rest);
  deepEqual(packets.map(hex), [UP(1), UP(2), UP(3)].map(hex));
  deepEqual(server.last, { from: 1, to: 0, mark: 0 });
  deepEqual(datagrams.map(({ dst, bytes }) => [dst, bytes.length]), [[1, OVERHEAD]]);
  const answers = server.send(DOWN(4), DOWN(5));
  deepEqual(answers.map(({ dst }) => dst), [1, 1]);
  deepEqual(numbers(client.receive(...datagrams, ...answers).packets), [4, 5]);
  ok(client.pipeline.balanced && server.pipeline.balanced);
});

Deno.test("Sealed shows nothing of a packet, and no datagram twice", () => {
  const { client } = pair();
  client.send();
  const seen = new Set<string>();
  for (let i = 0; i < 100; i++) {
    for (const { bytes } of client.send(UP(7))) seen.add(hex(bytes.subarray(24)));
  }
  equal(seen.size, 100);
});

Deno.test("Sealed drops what was changed, at every bit of header, packet and tag", () => {
  const { client, server } = pair();
  greet(client, server);
  const [datagram] = client.send(UP(1));
  for (let bit = 0; bit < 8 * datagram!.bytes.length; bit++) {
    const bytes = datagram!.bytes.slice();
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    deepEqual(server.receive({ bytes, src: 9 }), { packets: [], datagrams: [] }, `bit ${bit}`);
    server.advance(100);
  }
  equal(server.sealed.peers.byName("peer")!.endpoint![0], 1);
  deepEqual(numbers(server.receive(datagram!).packets), [1]);
  ok(server.pipeline.balanced);
});

Deno.test("Sealed drops what was truncated or extended", () => {
  const { client, server } = pair();
  greet(client, server);
  const [datagram] = client.send(UP(1));
  for (let length = 1; length < datagram!.bytes.length; length++) {
    deepEqual(server.receive({ bytes: datagram!.bytes.slice(0, length), src: 9 }).packets, []);
  }
  deepEqual(server.receive({ bytes: Uint8Array.of(...datagram!.bytes, 0), src: 9 }).packets, []);
  server.receive({ bytes: datagram!.bytes.slice().fill(0xff, 16, 24), src: 9 });
  deepEqual(server.stats.dropped, {
    [SealedDrop.Malformed]: OVERHEAD,
    [SealedDrop.NotAuthentic]: datagram!.bytes.length - OVERHEAD + 1,
  });
  deepEqual(numbers(server.receive(datagram!).packets), [1]);
});

Deno.test("Sealed drops a datagram that is reflected to its sender", () => {
  const { client, server } = pair();
  greet(client, server);
  const up = client.send(UP(1), packet("10.9.0.1", "10.9.0.2", 2));
  deepEqual(client.receive(...up), { packets: [], datagrams: [] });
  deepEqual(client.stats.dropped, { [SealedDrop.OldSession]: 2 });
  // Not even to a machine of the same role that has seen nothing yet.
  const other = new Machine(fakeCryptography(3), { role: "connect", key: KEY });
  other.send();
  deepEqual(other.receive(...up), { packets: [], datagrams: [] });
  deepEqual(other.stats.dropped, { [SealedDrop.NotAuthentic]: 2 });
});

Deno.test("Sealed delivers each datagram once, in any order within 8192", () => {
  const { client, server } = pair();
  greet(client, server);
  const all: Datagram[] = [];
  for (let i = 0; i < 8300; i += 100) {
    all.push(...client.send(...Array.from({ length: 100 }, (_, j) => UP(i + j))));
  }
  const early = all.slice(0, 200);
  for (let at = 8300; at > 200; at -= 100) server.receive(...all.slice(at - 100, at));
  const late = server.receive(...early).packets;
  // The greeting had counter 0, so the newest is 8300.
  deepEqual(numbers(late), Array.from({ length: 92 }, (_, i) => 108 + i));
  deepEqual(server.receive(...early, ...all.slice(4000, 4100)).packets, []);
  equal(server.stats.dropped[SealedDrop.Replayed], 108 + 200 + 100);
});

Deno.test("Sealed starts a new session every two hours and takes late datagrams of the one before", () => {
  const { client, server } = pair();
  greet(client, server);
  const open = OPEN_KEYS.size;
  const sessions = new Set<string>();
  let late: Datagram[] = [];
  for (let i = 0; i < 3 * 720; i++) {
    for (const machine of [client, server]) machine.advance(10 * SECOND);
    const up = client.send(UP(i), UP(i + 0.5));
    deepEqual(numbers(server.receive(up[0]!).packets), [i]);
    client.receive(...server.send(DOWN(i)));
    if (i % 10 === 0) deepEqual(server.receive(...late).packets.length, late.length);
    if (i % 10 === 0) late = [];
    late.push(up[1]!);
    sessions.add(hex(up[0]!.bytes.subarray(4, 16)));
  }
  equal(sessions.size, 3);
  equal(OPEN_KEYS.size, open + 2); // each keeps the session before
  deepEqual(server.stats.dropped, {});
  ok(server.stats.counters.keepalivesOut! <= 5);
});

Deno.test("Sealed starts a new session before its counters reach 2^32", () => {
  const client = new Machine(fakeCryptography(1, 2 ** 32 - 2), { role: "connect", key: KEY });
  const sent = client.send(UP(1), UP(2), UP(3), UP(4));
  const view = ({ bytes }: Datagram) => new DataView(bytes.buffer, bytes.byteOffset);
  deepEqual(sent.map((datagram) => view(datagram).getBigUint64(16)).map(Number), [
    2 ** 32 - 2,
    2 ** 32 - 1,
    2 ** 32 - 2,
    2 ** 32 - 1,
  ]);
  const sessions = sent.map(({ bytes }) => hex(bytes.subarray(4, 16)));
  equal(sessions[0], sessions[1]);
  ok(sessions[2]! > sessions[1]!);
  const server = new Machine(fakeCryptography(2), { role: "listen", key: KEY });
  deepEqual(numbers(server.receive(...sent).packets), [1, 2, 3, 4]);
});

Deno.test("Sealed recovers at once when the connecting side restarts, whatever the age of the other session", () => {
  const { client, server } = pair();
  greet(client, server);
  for (const machine of [client, server]) machine.advance(60 * MINUTE);
  client.receive(...server.receive(...client.send(UP(0))).datagrams);
  client.receive(...server.send(DOWN(0)));
  server.advance(50 * MINUTE);
  const restarted = new Machine(fakeCryptography(3), { role: "connect", key: KEY }, { wall: server.wall });
  deepEqual(numbers(restarted.receive(...server.receive(...restarted.send()).datagrams).packets), []);
  deepEqual(numbers(server.receive(...restarted.send(UP(1))).packets), [1]);
  deepEqual(numbers(restarted.receive(...server.send(DOWN(2))).packets), [2]);
});

Deno.test("Sealed recovers within 10 s of traffic when the listening side restarts", () => {
  const { client, server } = pair();
  greet(client, server);
  for (let i = 0; i < 360; i++) {
    for (const machine of [client, server]) machine.advance(10 * SECOND);
    server.receive(...client.send(UP(i)));
    client.receive(...server.send(DOWN(i)));
  }
  const restarted = new Machine(fakeCryptography(3), { role: "listen", key: KEY }, { wall: client.wall });
  const arrived: number[] = [];
  for (let second = 1; second <= 13; second++) {
    for (const machine of [client, restarted]) machine.advance(SECOND);
    const { packets, datagrams } = restarted.receive(...client.send(UP(second)));
    client.receive(...datagrams);
    arrived.push(...numbers(packets));
  }
  deepEqual(arrived, [11, 12, 13]);
  deepEqual(numbers(client.receive(...restarted.send(DOWN(1))).packets), [1]);
});

Deno.test("Sealed recovers at the next keepalive when the listening side restarts in an idle tunnel", () => {
  const { client, server } = pair();
  greet(client, server);
  for (const machine of [client, server]) machine.advance(60 * MINUTE);
  client.pass();
  const restarted = new Machine(fakeCryptography(3), { role: "listen", key: KEY }, { wall: client.wall });
  client.advance(25 * SECOND);
  const { datagrams } = restarted.receive(...client.send());
  equal(datagrams.length, 1);
  client.receive(...datagrams);
  deepEqual(numbers(client.receive(...restarted.send(DOWN(1))).packets), [1]);
});

Deno.test("Sealed lets no datagram be replayed after the sender's restart", () => {
  const { client, server } = pair();
  greet(client, server);
  const recorded = client.send(UP(1), UP(2));
  server.receive(recorded[0]!);
  const restarted = new Machine(fakeCryptography(3), { role: "connect", key: KEY }, { wall: START + 1 });
  server.receive(...restarted.send(UP(3)));
  // The one before is still a known session, so what is late arrives, once.
  deepEqual(numbers(server.receive(...recorded, ...recorded).packets), [2]);
  const again = new Machine(fakeCryptography(4), { role: "connect", key: KEY }, { wall: START + 2 });
  server.receive(...again.send(UP(4)));
  deepEqual(server.receive(...recorded).packets, []);
  equal(server.stats.dropped[SealedDrop.OldSession], 2);
});

Deno.test("Sealed refuses replays after the receiver's restart: by the clock, and by its saved state at once", () => {
  const { client, server } = pair();
  greet(client, server);
  const recorded = client.send(UP(1), UP(2));
  server.receive(...recorded);
  const state = JSON.parse(JSON.stringify(server.sealed.save()));
  const later = new Machine(fakeCryptography(3), { role: "listen", key: KEY }, {
    wall: START + 121 * SECOND,
  });
  deepEqual(later.receive(...recorded).packets, []);
  equal(later.stats.dropped[SealedDrop.ClocksDiffer], 2);
  const saved = new Machine(fakeCryptography(4), { role: "listen", key: KEY }, { wall: START + SECOND });
  saved.sealed.restore(state);
  deepEqual(saved.receive(...recorded).packets, []);
  deepEqual(saved.stats.dropped, { [SealedDrop.Replayed]: 2 });
  // The session goes on.
  deepEqual(numbers(saved.receive(...client.send(UP(3))).packets), [3]);
  deepEqual(numbers(client.receive(...saved.send(DOWN(4))).packets), [4]);
  const blank = new Machine(fakeCryptography(5), { role: "listen", key: KEY }, { wall: START + SECOND });
  deepEqual(numbers(blank.receive(...recorded, ...recorded).packets), [1, 2]); // as the README says
});

Deno.test("Sealed.save() holds outer addresses, counters and received sessions, and no session of its own", () => {
  const { client, server } = pair();
  greet(client, server);
  server.receive(...client.send(UP(1)));
  server.send(DOWN(1));
  const before = server.send(DOWN(2))[0]!.bytes.subarray(4, 16);
  const state = JSON.stringify(server.sealed.save());
  ok(!state.includes(before.toHex()) && !state.includes(KEY.toHex()));
  const restored = new Machine(fakeCryptography(3), { role: "listen", key: KEY });
  restored.sealed.restore(JSON.parse(state));
  const [datagram] = restored.send(DOWN(2));
  deepEqual([datagram!.dst, restored.sealed.peers.byName("peer")!.packetsIn], [1, 1]);
  notDeepEqual(datagram!.bytes.subarray(4, 16), before);
  equal(JSON.parse(state).peers[0].traffic[0], 2);
  const other = { name: "x", allowed: [], key: KEY };
  new Sealed(fakeCryptography(4), () => 0, { role: "listen", peers: [other] }).restore(JSON.parse(state));
  const [peer] = JSON.parse(state).peers;
  const spoiled = [
    null,
    {},
    [],
    "sealed 1",
    { format: "sealed 1" },
    ...[
      { name: 7 },
      { endpoint: "00" },
      { received: null },
      { received: { session: "xy", counter: 0 } },
      { received: { ...peer.received, counter: -1 } },
      { traffic: [1, 2, 3] },
      { traffic: [1, 2, 3, NaN] },
    ].map((change) => ({ format: "sealed 1", peers: [{ ...peer, ...change }] })),
  ];
  for (const wrong of spoiled) throws(() => restored.sealed.restore(wrong), TypeError, JSON.stringify(wrong));
});

Deno.test("Sealed takes new sessions within two minutes of its clock, and keeps known ones whatever the clocks do", () => {
  for (const [skew, expected] of [[-119, 1], [119, 1], [-121, 0], [121, 0], [-1e9, 0], [1e9, 0]] as const) {
    const { client, server } = pair();
    client.wall += skew * SECOND;
    const [datagram] = client.send(UP(1));
    equal(server.receive(datagram!).packets.length, expected, `${skew}`);
    if (expected === 0) deepEqual(server.stats.dropped, { [SealedDrop.ClocksDiffer]: 1 });
  }
  const { client, server } = pair();
  greet(client, server);
  for (const jump of [-1e9, 2e9, -1e9]) {
    client.wall += jump;
    server.wall -= jump / 3;
    deepEqual(numbers(server.receive(...client.send(UP(1))).packets), [1]);
    deepEqual(numbers(client.receive(...server.send(DOWN(2))).packets), [2]);
  }
});

Deno.test("Sealed keeps its sessions in order when its wall clock is set back", () => {
  const { client, server } = pair();
  greet(client, server);
  client.pipeline.now += 11 * SECOND;
  client.wall -= 30 * SECOND;
  const renewed = client.send(UP(1));
  deepEqual(numbers(server.receive(...renewed).packets), [1]);
  equal(server.stats.counters.sessions, 2);
});

Deno.test("Sealed never starts the same session twice, even at the same moment", () => {
  const sessions = new Set<string>();
  for (let seed = 0; seed < 50; seed++) {
    const [datagram] = new Machine(fakeCryptography(seed), { role: "connect", key: KEY }).send(UP(1));
    sessions.add(hex(datagram!.bytes.subarray(4, 16)));
  }
  equal(sessions.size, 50);
});

Deno.test("Sealed.tick() greets, repeats the greeting until it is heard, then keeps alive while nothing is sent", () => {
  const { client, server } = pair();
  const times: number[] = [];
  const run = (seconds: number, sends: boolean) => {
    for (let i = 0; i < 4 * seconds; i++) {
      const datagrams = sends ? client.send(UP(1)) : client.send();
      if (datagrams.length > 0) times.push(Math.round(client.pipeline.now / SECOND));
      for (const machine of [client, server]) machine.advance(250);
    }
  };
  run(80, false);
  deepEqual(times.splice(0), [0, 1, 3, 7, 15, 31, 56]);
  client.pipeline.now = 100 * SECOND;
  server.pipeline.now = 100 * SECOND;
  const { datagrams } = server.receive(...client.send(UP(1)));
  client.receive(...datagrams);
  run(80, false);
  deepEqual(times.splice(0), [125, 150, 175]);
  equal(server.stats.counters.keepalivesIn, 0);
  run(60, true);
  equal(times.length, 240);
});

Deno.test("Sealed sends no keepalive with keepalive: 0, and listens without any", () => {
  const { client, server } = pair({ keepalive: 0 });
  for (const machine of [client, server]) {
    deepEqual(machine.send(), []);
    machine.advance(60 * MINUTE);
    deepEqual(machine.send(), []);
  }
});

Deno.test("Sealed's listening side follows the newest authentic datagram, and no forged, late or replayed one", () => {
  const { client, server } = pair();
  const where = () => server.sealed.peers.byName("peer")!.endpoint?.[0];
  deepEqual(server.send(DOWN(1)), []);
  deepEqual(server.stats.dropped, { [SealedDrop.NoEndpoint]: 1 });
  greet(client, server);
  equal(where(), 1);
  const [late, newest] = client.send(UP(1), UP(2));
  server.receive({ ...newest!, src: 5 });
  equal(where(), 5);
  server.receive({ ...late!, src: 6 }, { ...newest!, src: 7 });
  const forged = client.send(UP(3))[0]!.bytes.slice();
  forged[30]! ^= 1;
  server.receive({ bytes: forged, src: 8 });
  equal(where(), 5);
  deepEqual(server.send(DOWN(4)).map(({ dst }) => dst), [5]);
  equal(server.stats.counters.roamed, 1);
  // The connecting side sends where its end below does.
  client.receive({ ...server.send(DOWN(5))[0]!, src: 9 });
  // A session that was replaced diverts nothing, however new its datagram is.
  const [overtaken] = client.send(UP(7));
  const restarted = new Machine(fakeCryptography(3), { role: "connect", key: KEY }, { wall: START + 1 });
  server.receive({ ...restarted.send()[0]!, src: 5 });
  deepEqual(numbers(server.receive({ ...overtaken!, src: 4 }).packets), [7]);
  equal(where(), 5);
  deepEqual(client.send(UP(6)).map(({ dst }) => dst), [0]);
});

Deno.test("Sealed opens nothing that was sealed with another algorithm", () => {
  const { client } = pair({ aead: "aes-256-gcm" });
  const { server } = pair();
  deepEqual(server.receive(...client.send(UP(1))).packets, []);
  deepEqual(server.stats.dropped, { [SealedDrop.NotAuthentic]: 1 });
});

Deno.test("Sealed works over an end without outer addresses", () => {
  const { client, server } = pair();
  const bare = (datagrams: Datagram[]) => datagrams.map(({ bytes }) => ({ bytes, src: 0 }));
  client.receive(...bare(server.receive(...bare(client.send(UP(1)))).datagrams));
  const down = server.send(DOWN(2));
  equal(down[0]!.dst, 0);
  deepEqual(numbers(client.receive(...bare(down)).packets), [2]);
});

const OTHER_KEYS = [1, 2, 3].map((number) => Uint8Array.from(KEY, (byte) => byte * 5 + number & 0xff));
const NAMES = ["ann", "bob", "eve"];

function three(
  peers: readonly SealedPeerOptions[],
  key: Uint8Array | undefined,
  keys: (i: number) => Partial<SealedOptions>,
) {
  const server = new Machine(fakeCryptography(9), { role: "listen", key, peers }, { address: 100 });
  const clients = NAMES.map((_, i) =>
    new Machine(fakeCryptography(10 + i), { role: "connect", ...keys(i) }, { address: i + 1 })
  );
  return { server, clients };
}

for (
  const [title, make] of [
    ["a key each", () =>
      three(
        NAMES.map((name, i) => ({
          name,
          allowed: [`10.9.0.${i + 2}`, `fd09::${i + 2}`],
          key: OTHER_KEYS[i]!,
        })),
        undefined,
        (i) => ({ key: OTHER_KEYS[i]! }),
      )],
    ["one key and their names", () =>
      three(
        NAMES.map((name, i) => ({ name, allowed: [`10.9.0.${i + 2}`, `fd09::${i + 2}`] })),
        KEY,
        (i) => ({ key: KEY, name: NAMES[i]! }),
      )],
  ] as const
) {
  Deno.test(`Sealed serves three peers with ${title}, each from its own addresses only`, () => {
    const { server, clients } = make();
    clients.forEach((client, i) => {
      for (const [src, dst] of [[`10.9.0.${i + 2}`, "10.9.0.1"], [`[fd09::${i + 2}]`, "[fd09::1]"]]) {
        const { packets, datagrams } = server.receive(...client.send(packet(src!, dst!, i)));
        deepEqual(numbers(packets), [i]);
        client.receive(...datagrams);
      }
    });
    const down = NAMES.flatMap((_, i) => server.send(packet("10.9.0.1", `10.9.0.${i + 2}`, i)));
    deepEqual(down.map(({ dst }) => dst), [1, 2, 3]);
    clients.forEach((client, i) => deepEqual(numbers(client.receive(...down).packets), [i]));
    const [, , eve] = clients;
    for (const src of ["10.9.0.2", "10.9.0.1", "192.0.2.1"]) {
      deepEqual(server.receive(...eve!.send(packet(src, "10.9.0.1", 7))).packets, []);
    }
    equal(server.stats.dropped[PeerDrop.SpoofedSource], 3);
    deepEqual(server.send(packet("10.9.0.1", "10.9.0.77")), []);
    equal(server.stats.dropped[PeerDrop.NoPeer], 1);
    deepEqual(
      Array.from(server.sealed.peers, ({ name, packetsIn, packetsOut }) => [name, packetsIn, packetsOut]),
      [
        ["ann", 2, 1],
        ["bob", 2, 1],
        ["eve", 2, 1],
      ],
    );
  });
}

Deno.test("Sealed adds and removes peers while it runs; a removed peer's datagrams are of an unknown key", () => {
  const open = OPEN_KEYS.size;
  const { client, server } = pair({ peers: [] });
  client.pass();
  deepEqual(server.send(DOWN(1)), []);
  const added = server.sealed.add({ name: "ann", allowed: ["10.9.0.2"] });
  client.sealed.add({ name: "server", allowed: ["10.9.0.1"], key: new Uint8Array(32).fill(1).with(0, 2) });
  equal(client.pipeline.wakes, 1);
  const ann = new Machine(fakeCryptography(3), { role: "connect", key: KEY, name: "ann" });
  const up = ann.send(UP(1), UP(2));
  deepEqual(numbers(server.receive(up[0]!).packets), [1]);
  deepEqual([server.sealed.peers.byNumber(added.number), server.sealed.peers.size], [added, 1]);
  server.receive({ ...ann.send(UP(3))[0]!, src: 8 });
  ok(server.sealed.remove("ann") && !server.sealed.remove("ann"));
  deepEqual(server.receive(up[1]!).packets, []);
  equal(server.stats.dropped[SealedDrop.UnknownKey], 1);
  equal(server.stats.counters.roamed, 1);
  for (const machine of [client, server, ann]) machine.sealed.close();
  equal(OPEN_KEYS.size, open);
});

Deno.test("Sealed keeps no key of 1000 peers that were added and removed", () => {
  const open = OPEN_KEYS.size;
  const server = new Machine(fakeCryptography(2), { role: "listen", key: KEY, peers: [] });
  for (let i = 0; i < 1000; i++) {
    const name = `peer ${i}`;
    server.sealed.add({ name, allowed: ["10.9.0.2"] });
    const client = new Machine(fakeCryptography(i), { role: "connect", key: KEY, name });
    equal(server.receive(...client.send(UP(1))).packets.length, 1);
    client.sealed.close();
    server.sealed.remove(name);
    server.advance(1);
  }
  equal(OPEN_KEYS.size, open);
  deepEqual(server.stats.counters, {
    peers: 0,
    sessions: 1000,
    keepalivesOut: 1000,
    keepalivesIn: 0,
    roamed: 0,
  });
});

Deno.test("Sealed limits attempts with unknown sessions, keeps no state for them, and still takes a true one", () => {
  const cryptography = fakeCryptography(2);
  let derivations = 0;
  const counted: typeof cryptography = {
    ...cryptography,
    hkdf: (...args) => (derivations++, cryptography.hkdf(...args)),
  };
  const { client } = pair();
  const server = new Machine(counted, { role: "listen", key: KEY }, { address: 2 });
  greet(client, server);
  const [datagram] = client.send(UP(1));
  const open = OPEN_KEYS.size;
  derivations = 0;
  for (let i = 0; i < 10_000; i++) {
    const bytes = datagram!.bytes.slice();
    new DataView(bytes.buffer, bytes.byteOffset).setUint32(12, i);
    bytes[9] = bytes[9]! + 1; // a later time
    server.receive({ bytes, src: 9 });
    if (i % 10 === 0) server.advance(1); // 10,000 datagrams per second
  }
  ok(derivations >= 140 && derivations <= 160, `${derivations}`);
  deepEqual([OPEN_KEYS.size, server.stats.counters.sessions], [open, 1]);
  deepEqual(numbers(server.receive(datagram!).packets), [1]);
  ok(server.pipeline.balanced);
});

Deno.test("Sealed limits rate and quota of a peer by inner bytes, and lets keepalives pass", () => {
  const length = UP(1).length;
  const peers = [{ name: "ann", allowed: ["10.9.0.2"], quota: 3 * length }];
  const server = new Machine(fakeCryptography(2), { role: "listen", key: KEY, peers }, { address: 2 });
  const client = new Machine(fakeCryptography(1), { role: "connect", key: KEY, name: "ann" });
  const { packets } = server.receive(...client.send(UP(1), UP(2)));
  deepEqual(numbers(packets), [1, 2]);
  equal(server.send(DOWN(3)).length, 1);
  deepEqual(server.send(DOWN(4)), []);
  deepEqual(server.receive(...client.send(UP(5))).packets, []);
  equal(server.stats.dropped[PeerDrop.Quota], 2);
  const peer = server.sealed.peers.byName("ann")!;
  peer.quota = Infinity;
  peer.rateBitsPerSecond = 8000;
  let passed = 0;
  for (let i = 0; i < 4000; i++) passed += server.send(DOWN(i)).length;
  ok(passed > 60_000 / length && passed < 70_000 / length);
});

Deno.test("Sealed reads a key as bytes, hexadecimal digits or base64, and never shows it", () => {
  const { server } = pair();
  const forms = [KEY, KEY.toHex(), KEY.toHex().toUpperCase(), KEY.toBase64(), ` ${KEY.toBase64()}\n`];
  forms.push(KEY.toBase64().replace("=", ""), KEY.toBase64({ alphabet: "base64url", omitPadding: true }));
  forms.forEach((key, i) => {
    const client = new Machine(fakeCryptography(20 + i), { role: "connect", key }, { wall: START + i });
    deepEqual(numbers(server.receive(...client.send(UP(i))).packets), [i]);
  });
  const make = (key: unknown) => () =>
    new Sealed(fakeCryptography(1), () => 0, { role: "listen", key: key as string });
  const rule = "key must be 32 random bytes, as a Uint8Array, 64 hexadecimal digits or base64";
  for (
    const [key, got] of [
      ["secret", "got a text of 6 characters"],
      [KEY.toHex().slice(1), "got a text of 63 characters"],
      [KEY.subarray(1), "got 31 bytes"],
      [new Uint8Array(32), "got equal bytes"],
      [null, "got null"],
    ] as const
  ) {
    throws(make(key), {
      name: "TypeError",
      message: `Cannot seal packets: ${rule}, ${got}: make one with "openssl rand -base64 32"`,
    });
  }
});

Deno.test("Sealed rejects options that do not fit together", () => {
  const cases: [Partial<SealedOptions>, RegExp][] = [
    [{}, /key is missing/],
    [{ role: undefined }, /role is missing/],
    [{ role: "both" as "listen" }, /role must be "connect" or "listen"/],
    [{ key: KEY, name: "ann", peers: [] }, /name and peers exclude each other/],
    [{ peers: [{ name: "ann", allowed: [] }] }, /Cannot add peer "ann": key is missing/],
    [{ key: KEY, keepalive: -1 }, /keepalive must be at least 0/],
    [{ key: KEY, maxClockError: 100 }, /maxClockError must be at least 20000/],
    [
      { key: KEY, peers: [{ name: "ann", allowed: [], port: 7 } as SealedPeerOptions] },
      /there is no option "port"/,
    ],
    [
      { peers: [{ name: "ann", allowed: [], key: KEY }, { name: "bob", allowed: [], key: KEY.toHex() }] },
      /Cannot add peer "bob": peer "ann" has its key: use another key/,
    ],
  ];
  for (const [options, message] of cases) {
    throws(() => new Sealed(fakeCryptography(1), () => 0, { role: "listen", ...options }), (error: Error) => {
      match(error.message, message);
      return true;
    });
  }
});
