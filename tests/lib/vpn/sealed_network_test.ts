/** The sealed protocol over a hostile network, from a seed: loss, reordering, duplicates, forgeries, replays, restarts. */

import { deepEqual, equal, ok } from "node:assert/strict";
import { Sealed, type SealedOptions } from "@warren/tunnel/vpn";
import { fakeCryptography } from "../../kit/fake_cryptography.ts";
import { Random } from "../../../lib/core/random.ts";
import { type Datagram, KEY, Machine, numberIn, packet, START } from "./_machine.ts";

const SECOND = 1000;

/** One side, over all of its restarts. */
class Side {
  machine: Machine;
  /** Numbers of packets that arrived, and how often. */
  readonly arrived = new Map<number, number>();
  readonly #options: SealedOptions;
  readonly #random: Random;
  #starts = 0;

  constructor(role: "connect" | "listen", random: Random) {
    this.#options = { role, key: KEY };
    this.#random = random;
    this.machine = this.#start(START, 1);
  }

  get isClient(): boolean {
    return this.#options.role === "connect";
  }

  /** Ends the process, and starts another, which knows only the saved state. */
  restart(keepsState: boolean): void {
    const { sealed, wall, address } = this.machine;
    const state = JSON.parse(JSON.stringify(sealed.save()));
    sealed.close();
    this.machine = this.#start(wall, address);
    if (keepsState) this.machine.sealed.restore(state);
  }

  send(number: number): Datagram[] {
    const [here, there] = this.isClient ? ["10.9.0.2", "10.9.0.1"] : ["10.9.0.1", "10.9.0.2"];
    return this.machine.send(packet(here!, there!, number));
  }

  receive(datagram: Pick<Datagram, "bytes" | "src">): Datagram[] {
    const { packets, datagrams } = this.machine.receive(datagram);
    for (const bytes of packets) {
      const number = numberIn(bytes);
      ok(Number.isInteger(number));
      this.arrived.set(number, (this.arrived.get(number) ?? 0) + 1);
    }
    return datagrams;
  }

  #start(wall: number, address: number): Machine {
    const seed = this.#random.below(1e9) + this.#starts++;
    return new Machine(fakeCryptography(seed), this.#options, { address, wall });
  }
}

/** Two sides, and the network between them. */
class Network {
  readonly random: Random;
  readonly client: Side;
  readonly server: Side;
  readonly #underWay: { at: number; to: Side; datagram: Datagram }[] = [];
  readonly #recorded: { to: Side; datagram: Datagram }[] = [];
  /** Header of each datagram that left a machine: session and counter. */
  readonly #headers = new Set<string>();
  #now = 0;
  #next = 0;

  constructor(seed: number) {
    this.random = new Random(seed);
    this.client = new Side("connect", this.random);
    this.server = new Side("listen", this.random);
  }

  /** Passes 100 ms, in which each side sends a packet; returns its number. */
  step(isCalm: boolean): number {
    const { random } = this;
    const number = this.#next++;
    this.#now += 100;
    for (const side of [this.client, this.server]) {
      side.machine.advance(100);
      this.#carry(side, side.send(number), isCalm);
    }
    if (!isCalm && this.#recorded.length > 0) {
      for (let i = random.below(4); i > 0; i--) {
        const { to, datagram } = this.#recorded[random.below(this.#recorded.length)]!;
        // A replay to either side, unchanged or forged.
        const target = random.below(4) === 0 ? (to === this.client ? this.server : this.client) : to;
        this.#deliver(target, { ...this.#spoil(datagram, random.below(3)), src: 66 });
      }
    }
    for (let i = this.#underWay.length - 1; i >= 0; i--) {
      if (this.#underWay[i]!.at > this.#now) continue;
      const { to, datagram } = this.#underWay.splice(i, 1)[0]!;
      this.#deliver(to, datagram);
    }
    return number;
  }

  #deliver(to: Side, datagram: Datagram): void {
    this.#carry(to, to.receive(datagram), true);
    ok(to.machine.pipeline.balanced);
  }

  #carry(from: Side, datagrams: Datagram[], isCalm: boolean): void {
    const { random } = this;
    const to = from === this.client ? this.server : this.client;
    for (const datagram of datagrams) {
      const header = datagram.bytes.subarray(4, 24).toHex();
      ok(!this.#headers.has(header + from.isClient), "a nonce was used twice");
      this.#headers.add(header + from.isClient);
      // Datagrams to an address that the client has left are lost.
      if (!from.isClient && datagram.dst !== this.client.machine.address) continue;
      this.#recorded.push({ to, datagram });
      if (this.#recorded.length > 2000) this.#recorded[random.below(2000)] = this.#recorded.pop()!;
      if (isCalm) {
        this.#underWay.push({ at: this.#now, to, datagram });
        continue;
      }
      for (let copies = [0, 1, 1, 1, 1, 1, 1, 1, 2, 3][random.below(10)]!; copies > 0; copies--) {
        const delay = random.below(4) === 0 ? random.below(3000) : 100;
        this.#underWay.push({ at: this.#now + delay, to, datagram: this.#spoil(datagram, random.below(20)) });
      }
    }
  }

  /** Returns the datagram changed in the way of this number, or unchanged. */
  #spoil(datagram: Datagram, way: number): Datagram {
    const { random } = this;
    const bytes = datagram.bytes.slice(0, way === 1 ? 1 + random.below(datagram.bytes.length) : undefined);
    if (way === 2) bytes[random.below(bytes.length)]! ^= 1 << random.below(8);
    return { ...datagram, bytes };
  }
}

/** Runs a storm with restarts, changing addresses and clocks, then a calm of three minutes. */
function storm(seed: number, keepsState: boolean): Network {
  const network = new Network(seed);
  const { random, client, server } = network;
  for (let i = 0; i < 3000; i++) {
    network.step(false);
    if (random.below(100) === 0) client.restart(keepsState);
    if (random.below(100) === 0) server.restart(keepsState);
    if (random.below(50) === 0) client.machine.address = 1 + random.below(50);
    if (random.below(200) === 0) client.machine.wall += (random.below(180) - 90) * SECOND;
    if (random.below(200) === 0) server.machine.wall += (random.below(180) - 90) * SECOND;
  }
  // NTP corrects the clocks.
  client.machine.wall = server.machine.wall = START + 300 * SECOND;
  for (let i = 0; i < 2400; i++) network.step(true);
  return network;
}

for (const keepsState of [true, false]) {
  const title = keepsState ? "with saved states" : "without saved states";
  Deno.test(`Sealed delivers no packet twice or changed in a storm ${title}, and recovers from it`, () => {
    for (const seed of [1, 2, 3]) {
      const network = storm(seed, keepsState);
      const { client, server } = network;
      const calm = Array.from({ length: 100 }, () => network.step(true)).slice(0, -5);
      for (const side of [client, server]) {
        deepEqual(calm.filter((number) => side.arrived.get(number) !== 1), [], `seed ${seed}`);
        // Without its state, a receiver that restarts may take each datagram of the last two minutes once more.
        if (keepsState) ok([...side.arrived.values()].every((times) => times === 1), `seed ${seed}`);
        ok(
          side.arrived.size > 2000 && [...side.arrived.keys()].every((number) => number <= calm.at(-1)! + 5),
        );
      }
      equal(server.machine.sealed.peers.byName("peer")!.endpoint![0], client.machine.address);
    }
  });
}

Deno.test("Sealed recovers from an outage of two minutes with the first datagrams that pass", () => {
  const network = new Network(7);
  for (let i = 0; i < 100; i++) network.step(true);
  for (const side of [network.client, network.server]) {
    for (let i = 0; i < 120; i++) {
      side.machine.advance(SECOND);
      side.send(1e6 + i);
    }
  }
  const numbers = Array.from({ length: 20 }, () => network.step(true)).slice(0, -2);
  for (const side of [network.client, network.server]) {
    deepEqual(numbers.filter((number) => side.arrived.get(number) !== 1), []);
  }
});

Deno.test("Sealed.restore() accepts its state in JSON before and after the first packets", () => {
  const make = () => new Sealed(fakeCryptography(1), () => START, { role: "listen", key: KEY });
  const state = JSON.stringify(make().save());
  const restored = make();
  restored.restore(JSON.parse(state));
  equal(JSON.stringify(restored.save()), state);
});
