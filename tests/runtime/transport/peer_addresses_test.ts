/** The choice of a peer's address, second by second. */

import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { AddressPort } from "../../../runtime/transport/host_port.ts";
import { PeerAddresses } from "../../../runtime/transport/peer_addresses.ts";

const [A, B, C]: AddressPort[] = ["2001:db8::1", "192.0.2.1", "192.0.2.2"].map((host, i) => ({
  host,
  port: 4500,
  family: i === 0 ? 6 : 4,
})) as [AddressPort, AddressPort, AddressPort];

/** Sends for some seconds, and receives from the address in use if `receives`; returns the number of look-ups requested. */
function pass(peer: PeerAddresses, seconds: number, { sends = true, receives = false } = {}): number {
  let lookUps = 0;
  for (let second = 0; second < seconds; second++) {
    if (sends) peer.sent();
    if (receives) peer.received(peer.index);
    if (peer.check()) lookUps++;
  }
  return lookUps;
}

Deno.test("PeerAddresses uses the first address while packets come from it, without look-ups", () => {
  const peer = new PeerAddresses([A!, B!]);
  strictEqual(pass(peer, 3600, { receives: true }), 0);
  strictEqual(peer.current, A);
});

Deno.test("PeerAddresses changes nothing while nothing is sent", () => {
  const peer = new PeerAddresses([A!, B!]);
  strictEqual(pass(peer, 3600, { sends: false }), 0);
  strictEqual(peer.current, A);
});

Deno.test("PeerAddresses moves on at once from what is unreachable, to each of the others once a second", () => {
  const peer = new PeerAddresses([A!, B!, C!]);
  strictEqual(peer.unreachable(true), true);
  strictEqual(peer.current, B);
  strictEqual(peer.unreachable(true), true);
  strictEqual(peer.current, C);
  strictEqual(peer.unreachable(true), false);
  strictEqual(peer.current, C);
  peer.check();
  strictEqual(peer.unreachable(true), true);
  strictEqual(peer.current, A);
});

Deno.test("PeerAddresses ignores errors from the network about an address that packets come from", () => {
  const peer = new PeerAddresses([A!, B!]);
  peer.received(0);
  strictEqual(peer.unreachable(false), false);
  strictEqual(peer.current, A);
  peer.check();
  strictEqual(peer.unreachable(false), true);
  strictEqual(peer.current, B);
});

Deno.test("PeerAddresses leaves an address that has never replied after 3 s, and one that has after 15 s", () => {
  const peer = new PeerAddresses([A!, B!]);
  pass(peer, 2);
  strictEqual(peer.current, A);
  pass(peer, 1);
  strictEqual(peer.current, B);
  pass(peer, 10, { receives: true });
  pass(peer, 14);
  strictEqual(peer.current, B);
  pass(peer, 1);
  strictEqual(peer.current, A);
});

Deno.test("PeerAddresses changes addresses ever more slowly without replies", () => {
  const peer = new PeerAddresses([A!, B!]);
  const changes: number[] = [];
  for (let second = 1, last = peer.index; second <= 600; second++) {
    pass(peer, 1);
    if (peer.index !== last) changes.push(second);
    last = peer.index;
  }
  deepStrictEqual(changes.slice(0, 8), [3, 6, 12, 18, 30, 42, 66, 90]);
  const gaps = changes.slice(1).map((second, i) => second - changes[i]!);
  strictEqual(Math.max(...gaps), 60);
});

Deno.test("PeerAddresses requests look-ups ever more rarely without replies", () => {
  for (const list of [[A!], [A!, B!]]) {
    const peer = new PeerAddresses(list);
    strictEqual(pass(peer, 4), 0);
    const lookUps = pass(peer, 3600);
    strictEqual(lookUps > 8 && lookUps < 25, true, `${lookUps}`);
    strictEqual(pass(peer, 30, { receives: true }), 0);
  }
});

Deno.test("PeerAddresses follows a peer that speaks from another of its addresses, if the one in use is silent", () => {
  const peer = new PeerAddresses([A!, B!]);
  peer.sent();
  peer.received(1);
  strictEqual(peer.current, B);
  pass(peer, 5, { receives: true });
  peer.received(1);
  peer.received(0);
  strictEqual(peer.current, B);
});

Deno.test("PeerAddresses.update() keeps the address in use if the name still has it, or if it works after all", () => {
  const peer = new PeerAddresses([A!, B!]);
  peer.unreachable(true);
  peer.update([C!, B!]);
  strictEqual(peer.current, B);
  peer.update([A!, C!]);
  strictEqual(peer.current, A);
  pass(peer, 2, { receives: true });
  peer.update([B!, C!]);
  strictEqual(peer.current, A);
  deepStrictEqual(peer.list, [A, B, C]);
  pass(peer, 5);
  peer.update([B!, C!]);
  strictEqual(peer.current, B);
  strictEqual(peer.index, 0);
});
