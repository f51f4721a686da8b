/** `Peer` and `Peers`: lookups, addresses, limits, and that removal leaves nothing behind. */

import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { Direction, type Packet, PacketPool } from "@warren/tunnel/core";
import { Peer, PeerDrop, type PeerOptions, Peers } from "@warren/tunnel/vpn";
import { encodePacket } from "../../kit/packet_text.ts";
import { packetOf } from "../../kit/packets.ts";

const { Inbound, Outbound } = Direction;

function peer(name: string, allowed: string[], options: Partial<PeerOptions> = {}): Peer {
  return new Peer({ name, allowed, ...options });
}

function between(src: string, dst: string): Packet {
  return packetOf(encodePacket(`udp ${src}:5000 > ${dst}:53 "hello"`));
}

Deno.test("Peers.of() finds the peer with the longest prefix of the destination, and obeys packet.to", () => {
  const peers = new Peers();
  const all = peers.add(peer("all", ["0.0.0.0/0", "::/0"]));
  const office = peers.add(peer("office", ["10.9.0.0/16", "fd09::/16"]));
  const laptop = peers.add(peer("laptop", ["10.9.0.2", "fd09::2"]));
  equal(peers.of(between("10.1.0.1", "10.9.0.2")), laptop);
  equal(peers.of(between("10.1.0.1", "10.9.0.3")), office);
  equal(peers.of(between("10.1.0.1", "192.0.2.1")), all);
  equal(peers.of(between("[fd01::1]", "[fd09::2]")), laptop);
  equal(peers.of(between("[fd01::1]", "[fd09::3]")), office);
  equal(peers.of(between("[fd01::1]", "[2001:db8::1]")), all);
  const packet = between("10.1.0.1", "10.9.0.2");
  packet.to = office.number;
  equal(peers.of(packet), office);
  for (const to of [99, -1, 1.5, NaN]) {
    packet.to = to;
    equal(peers.of(packet), undefined);
  }
  equal(peers.of(packetOf([0x45, 0])), undefined);
});

Deno.test("Peers.admits() takes a source only from the peer with its longest prefix", () => {
  const peers = new Peers();
  const office = peers.add(peer("office", ["10.9.0.0/16", "fd09::/16"]));
  const laptop = peers.add(peer("laptop", ["10.9.0.2", "fd09::2"]));
  for (const [src, dst] of [["10.9.0.2", "10.9.0.9"], ["[fd09::2]", "[fd09::9]"]] as const) {
    ok(peers.admits(between(src, dst), laptop) && !peers.admits(between(src, dst), office));
    ok(peers.admits(between(dst, src), office) && !peers.admits(between(dst, src), laptop));
  }
  ok(!peers.admits(between("192.0.2.1", "10.9.0.2"), office));
  ok(!peers.admits(packetOf([0x45, 0]), office) && !peers.admits(packetOf([0]), office));
});

Deno.test("Peers.add() rejects a name or prefix of another peer, and a peer that was added before", () => {
  const peers = new Peers();
  const one = peers.add(peer("one", ["10.9.0.1/24"]));
  throws(() => peers.add(peer("one", [])), /Cannot add peer "one": there is a peer of this name/);
  throws(() => peers.add(peer("two", ["10.9.0.77/24"])), /10.9.0.77\/24 belongs to peer "one"/);
  throws(() => peers.add(one), TypeError);
  equal(peers.size, 1);
  equal(peers.remove("two"), undefined);
  peers.remove("one");
  throws(() => peers.add(one), /has been added before/);
  equal(peers.add(peer("one", ["10.9.0.0/24"])).number, 2);
});

Deno.test("Peer rejects options that are missing, unknown or out of range", () => {
  throws(() => peer("", []), /name must have 1 to 100 characters/);
  throws(() => peer("x".repeat(101), []), RangeError);
  throws(() => peer("a", ["10.9.0.0/33"]), SyntaxError);
  throws(() => new Peer({ name: "a" } as PeerOptions), /Cannot add peer "a": allowed is missing/);
  throws(() => peer("a", [], { endpoint: new Uint8Array(28) }), /endpoint must have 48 bytes, got 28/);
  for (const limit of [-1, NaN]) throws(() => peer("a", [], { quota: limit }), RangeError);
  for (const limit of [0, -1, NaN]) throws(() => peer("a", [], { rateBitsPerSecond: limit }), RangeError);
});

Deno.test("Peers.remove() leaves a packet for the removed peer without one, even when another is added", () => {
  const peers = new Peers();
  const packet = between("10.1.0.1", "10.9.0.2");
  packet.to = peers.add(peer("old", ["10.9.0.2"])).number;
  peers.remove("old");
  peers.add(peer("new", ["10.9.0.2"]));
  equal(peers.of(packet), undefined);
});

Deno.test("Peers keep no memory of 10,000 peers that were added and removed", () => {
  const peers = new Peers();
  peers.add(peer("stays", ["10.0.0.0/8", "fd00::/8"]));
  const churn = (): void => {
    for (let i = 0; i < 10_000; i++) {
      const address = `10.${i >> 16 & 255}.${i >> 8 & 255}.${i & 255}`;
      peers.add(peer(`peer ${i}`, [address, `fd09::${i.toString(16)}`]));
      if (i >= 100) peers.remove(`peer ${i - 100}`);
    }
    for (let i = 9900; i < 10_000; i++) peers.remove(`peer ${i}`);
  };
  churn();
  const { byteLength } = peers;
  for (let round = 0; round < 3; round++) churn();
  equal(peers.byteLength, byteLength);
  deepEqual([...peers].map(({ name }) => name), ["stays"]);
  equal(peers.of(between("10.1.0.1", "10.0.3.77"))?.name, "stays");
  equal(peers.byName("peer 9999"), undefined);
});

Deno.test("Peer.charge() keeps to the rate in each direction, and counts what passes", () => {
  const one = peer("a", [], { rateBitsPerSecond: 8_000_000 });
  let passed = 0;
  for (let now = 0; now <= 10_000; now++) {
    for (let i = 0; i < 2; i++) passed += one.charge(1000, Outbound, now) === undefined ? 1000 : 0;
    equal(one.charge(500, Inbound, now), undefined);
  }
  // One byte per microsecond, the burst of 100 ms, and one packet.
  ok(passed >= 10_000_000 && passed <= 10_101_000, `${passed}`);
  deepEqual([one.bytesOut, one.packetsOut, one.packetsIn], [passed, passed / 1000, 10_001]);
  one.rateBitsPerSecond = Infinity;
  equal(one.charge(1e9, Outbound, 10_000), undefined);
});

Deno.test("Peer.charge() ends at the quota, which can be raised", () => {
  const one = peer("a", [], { quota: 2500 });
  equal(one.charge(1000, Outbound, 0), undefined);
  equal(one.charge(1000, Inbound, 0), undefined);
  equal(one.charge(1000, Outbound, 0), PeerDrop.Quota);
  equal(one.charge(500, Inbound, 0), undefined);
  equal(one.charge(1, Inbound, 0), PeerDrop.Quota);
  one.quota += 1;
  equal(one.charge(1, Inbound, 0), undefined);
  deepEqual([one.bytesIn, one.bytesOut], [1501, 1000]);
});

Deno.test("Peer.follow() takes an endpoint, and address() sets it in packets", () => {
  const [one, pool] = [peer("a", []), new PacketPool({ small: 2, large: 0 })];
  const [came, goes] = [pool.take(10)!, pool.take(10)!];
  goes.hasEndpoint = true;
  one.address(goes);
  equal(goes.hasEndpoint, false);
  one.follow(came);
  equal(one.endpoint, undefined);
  for (const [address, roamed] of [[1, 0], [1, 0], [2, 1], [1, 2]] as const) {
    came.sendTo(new Uint8Array(48).fill(address));
    one.follow(came);
    one.address(goes);
    deepEqual([goes.hasEndpoint, [...goes.endpoint], one.roamed], [true, Array(48).fill(address), roamed]);
  }
  one.endpoint![0] = 9; // a copy
  equal(one.endpoint![0], 1);
  equal(peer("b", [], { endpoint: new Uint8Array(48).fill(3) }).endpoint![47], 3);
});
