/** One million hostile datagrams against the sealed protocol, from seeds: none passes, nothing is kept for them. */

import { deepEqual, equal, ok } from "node:assert/strict";
import { openCryptography } from "@warren/tunnel/cryptography";
import type { AeadName, Cryptography } from "@warren/tunnel/vpn";
import { fakeCryptography, OPEN_KEYS } from "../../kit/fake_cryptography.ts";
import { Random } from "../../../lib/core/random.ts";
import { KEY, Machine, packet } from "./_machine.ts";

const TESTS = 10;
const FAKED = 95_000;
const REAL = 25_000;
const BATCH = 60;
/** Genuine datagrams that the attacker knows. */
const KNOWN = 500;

/** Makes hostile datagrams out of genuine ones and of nothing. */
class Attacker {
  readonly #random: Random;
  /** Datagrams that were delivered. */
  readonly delivered: Uint8Array[] = [];
  /** Datagrams that the attacker withheld. */
  readonly withheld: Uint8Array[] = [];
  /** Datagrams of the other direction. */
  readonly reflected: Uint8Array[] = [];

  constructor(random: Random) {
    this.#random = random;
  }

  /** Returns a datagram, which must not pass. */
  make(wall: number): Uint8Array {
    const random = this.#random;
    const known = random.below(2) === 0 ? this.delivered : this.withheld;
    const bytes = known[random.below(known.length)]!.slice();
    const view = new DataView(bytes.buffer);
    switch (random.below(10)) {
      case 0: // random bytes
        return this.#fill(new Uint8Array(1 + random.below(200)), 0);
      case 1: // random after the key id
        return this.#fill(bytes, 4);
      case 2: // a session of now
        view.setUint32(4, Math.floor(wall / 65_536));
        this.#fill(bytes, 8);
        view.setUint32(16, 0);
        return bytes;
      case 3: // another counter
        view.setUint32(20, view.getUint32(20) + 1 + random.below(20_000));
        return bytes;
      case 4: // a flipped bit
        bytes[random.below(bytes.length)]! ^= 1 << random.below(8);
        return bytes;
      case 5: // truncated
        return bytes.subarray(0, 1 + random.below(bytes.length - 1));
      case 6: // extended
        return Uint8Array.of(...bytes, random.below(256));
      case 7: // the header of one, the packet of another
        return Uint8Array.of(...bytes.subarray(0, 24), ...this.delivered[0]!.subarray(24));
      case 8:
        return this.reflected[random.below(this.reflected.length)]!;
      default:
        return this.delivered[random.below(this.delivered.length)]!;
    }
  }

  #fill(bytes: Uint8Array, from: number): Uint8Array {
    for (let i = from; i < bytes.length; i++) bytes[i] = this.#random.below(256);
    return bytes;
  }
}

/** Sends this number of hostile datagrams to a server, with a few genuine ones among them, out of order. */
function assault(cryptography: Cryptography, aead: AeadName, seed: number, count: number): void {
  const random = new Random(seed);
  const attacker = new Attacker(random);
  const options = { key: KEY, aead };
  const client = new Machine(cryptography, { role: "connect", ...options });
  const server = new Machine(cryptography, { role: "listen", ...options }, { address: 2 });
  client.receive(...server.receive(...client.send()).datagrams);
  const up = (number: number) => packet("10.9.0.2", "10.9.0.1", number);
  let sent = 0;
  let arrived = 0;
  let [hostile, heap] = [0, 0];
  while (hostile < count) {
    const genuine = client.send(up(sent++), up(sent++)).map(({ bytes }) => bytes);
    attacker.withheld.push(client.send(up(-1))[0]!.bytes);
    const [down] = server.send(packet("10.9.0.1", "10.9.0.2", sent));
    client.receive(down!);
    attacker.reflected.push(down!.bytes);
    const batch: Uint8Array[] = [];
    while (attacker.delivered.length > 0 && batch.length < BATCH) batch.push(attacker.make(server.wall));
    hostile += batch.length;
    for (const bytes of genuine) batch.splice(random.below(batch.length + 1), 0, bytes);
    const { packets, datagrams } = server.receive(...batch.map((bytes) => ({ bytes, src: 1 })));
    arrived += packets.length;
    equal(arrived, sent, `seed ${seed}, after ${hostile} hostile datagrams`);
    client.receive(...datagrams);
    attacker.delivered.push(...genuine);
    for (const list of [attacker.delivered, attacker.withheld, attacker.reflected]) {
      if (list.length > KNOWN) list.splice(random.below(KNOWN), list.length - KNOWN);
    }
    for (const machine of [client, server]) machine.advance(5);
    if (hostile > count / 2 && heap === 0) heap = Deno.memoryUsage().heapUsed;
  }
  ok(server.pipeline.balanced && client.pipeline.balanced);
  const { dropped, counters } = server.stats;
  equal(Object.values(dropped).reduce((sum, number) => sum + number, 0), hostile);
  equal(counters.sessions, 1);
  const growth = Deno.memoryUsage().heapUsed - heap;
  ok(growth < 64 * 2 ** 20, `the heap grew by ${growth} bytes`);
  deepEqual(Object.keys(dropped).sort(), [
    "clocks differ",
    "malformed datagram",
    "not authentic",
    "old session",
    "replayed",
    "too many unknown sessions",
    "unknown key",
  ]);
  for (const machine of [client, server]) machine.sealed.close();
}

for (let seed = 1; seed <= TESTS; seed++) {
  Deno.test(`Sealed lets none of ${FAKED} hostile datagrams pass, and keeps nothing for them (${seed} of ${TESTS})`, () => {
    const open = OPEN_KEYS.size;
    assault(fakeCryptography(seed), "chacha20-poly1305", seed, FAKED);
    equal(OPEN_KEYS.size, open);
  });
}

for (const aead of ["chacha20-poly1305", "aes-256-gcm"] as const) {
  Deno.test(`Sealed lets none of ${REAL} hostile datagrams pass with real ${aead}`, async () => {
    assault(await openCryptography("node"), aead, 77, REAL);
  });
}
