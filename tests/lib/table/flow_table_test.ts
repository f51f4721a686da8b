/** The table of flows beside a Map. */

import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { FlowKey } from "@warren/tunnel/flow_key";
import { FlowTable, type FlowTableOptions } from "@warren/tunnel/flow_table";
import { Random } from "../../../lib/core/random.ts";

const HASH_KEY = [1, 2] as const;

/** Returns a key whose four words are derived from a number. */
function keyOf(number: number): FlowKey {
  const key = new FlowKey();
  key.length = 4;
  key.words.set([4 << 8 | 17, number, 0x0a090001, number << 16 | 53]);
  return key;
}

function table(options: Partial<FlowTableOptions> = {}): FlowTable {
  return new FlowTable({ timeouts: [100], capacity: 4, hashKey: HASH_KEY, ...options });
}

/** A table as a Map in the order in which flows were last seen. */
class Oracle {
  readonly #flows = new Map<number, { state: number; seen: number }>();
  readonly #timeouts: readonly number[];
  readonly #capacity: number;

  constructor(timeouts: readonly number[], capacity: number) {
    this.#timeouts = timeouts;
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#flows.size;
  }

  get(number: number, now: number): number | undefined {
    const flow = this.#flows.get(number);
    if (flow === undefined || now - flow.seen < this.#timeouts[flow.state]!) return flow?.state;
    this.#flows.delete(number);
    return undefined;
  }

  set(number: number, state: number, now: number): void {
    const known = this.#flows.get(number);
    if (known?.seen === now && known.state === state) return;
    this.#flows.delete(number);
    if (this.#flows.size === this.#capacity) {
      const state = Math.min(...Array.from(this.#flows.values(), ({ state }) => state));
      const [worst] = Array.from(this.#flows).find(([, flow]) => flow.state === state)!;
      this.#flows.delete(worst);
    }
    this.#flows.set(number, { state, seen: now });
  }

  remove(number: number): void {
    this.#flows.delete(number);
  }

  expire(now: number): void {
    for (const number of [...this.#flows.keys()]) this.get(number, now);
  }

  due(now: number): number {
    const due = Array.from(this.#flows.values(), ({ state, seen }) => seen + this.#timeouts[state]! - now);
    return Math.max(0, Math.min(...due));
  }

  list(state: number): number[] {
    return Array.from(this.#flows).filter(([, flow]) => flow.state === state).map(([number]) => number);
  }
}

for (const capacity of [1, 3, 64, 1000]) {
  Deno.test(`FlowTable agrees with a Map of at most ${capacity} flows`, () => {
    const random = new Random(capacity);
    const next = (limit: number) => random.below(limit);
    const timeouts = [50, 400];
    const oracle = new Oracle(timeouts, capacity);
    const numbers = new Map<number, number>();
    const names: number[] = [];
    const flows = table({
      timeouts,
      capacity,
      hashKey: undefined,
      forget: (flow) => {
        equal(numbers.get(names[flow]!), flow);
        numbers.delete(names[flow]!);
      },
    });
    let now = 0;
    for (let step = 0; step < 20_000; step++) {
      if (next(4) === 0) now += next(8);
      const number = next(2 * capacity + 2);
      const key = keyOf(number);
      const state = next(2);
      const flow = flows.find(key, now);
      equal(flow >= 0 ? flows.stateOf(flow) : undefined, oracle.get(number, now));
      switch (next(8)) {
        case 0:
          if (flow >= 0) flows.remove(flow);
          oracle.remove(number);
          break;
        case 1:
          while (flows.expire(now) > 0);
          oracle.expire(now);
          equal(flows.due(now), oracle.due(now));
          break;
        default:
          if (flow >= 0) flows.touch(flow, now, state);
          else {
            const added = flows.add(key, state, now);
            names[added] = number;
            numbers.set(number, added);
          }
          oracle.set(number, state, now);
      }
      equal(flows.size, oracle.size);
      equal(flows.size, numbers.size);
    }
    const read = new FlowKey();
    const listed = Array.from(flows, (flow) => {
      flows.readKey(flow, read);
      equal(read.words[1], names[flow]);
      return names[flow];
    });
    deepEqual(listed, [...oracle.list(0), ...oracle.list(1)]);
  });
}

Deno.test("FlowTable.find() removes a flow at its state's timeout, to the millisecond", () => {
  const flows = table({ timeouts: [100, 1000] });
  const [short, long] = [flows.add(keyOf(1), 0, 0), flows.add(keyOf(2), 1, 0)];
  equal(flows.due(40), 60);
  equal(flows.find(keyOf(1), 99), short);
  equal(flows.find(keyOf(1), 100), -1);
  equal(flows.find(keyOf(2), 999), long);
  flows.touch(long, 999);
  equal(flows.find(keyOf(2), 1998), long);
  equal(flows.expire(1999), 1);
  deepEqual([flows.size, flows.due(1999)], [0, Infinity]);
});

Deno.test("FlowTable.add() evicts the longest idle flow of the lowest state", () => {
  const forgotten: number[] = [];
  const flows = table({ timeouts: [100, 100], capacity: 3, forget: (flow) => forgotten.push(flow) });
  const [a, b, c] = [flows.add(keyOf(1), 1, 0), flows.add(keyOf(2), 0, 1), flows.add(keyOf(3), 0, 2)];
  flows.touch(b, 3);
  flows.add(keyOf(4), 1, 4);
  flows.add(keyOf(5), 1, 5);
  flows.add(keyOf(6), 0, 6);
  deepEqual(forgotten, [c, b, a]);
  flows.add(keyOf(7), 1, 7);
  equal(flows.find(keyOf(6), 8), -1);
  equal(flows.size, 3);
});

Deno.test("FlowTable.expire() removes at most 1024 flows per call", () => {
  const flows = table({ capacity: 3000 });
  for (let i = 0; i < 3000; i++) flows.add(keyOf(i), 0, 0);
  deepEqual([1, 2, 3, 4].map(() => flows.expire(100)), [1024, 1024, 952, 0]);
});

Deno.test("FlowTable distinguishes keys of IPv4 and IPv6 with the same first words", () => {
  const flows = table();
  const short = keyOf(1);
  const long = keyOf(1);
  long.length = 10;
  const flow = flows.add(short, 0, 0);
  equal(flows.find(long, 0), -1);
  ok(flows.add(long, 0, 0) !== flow);
});

Deno.test("FlowTable.add() replaces the flow of a known key", () => {
  const forgotten: number[] = [];
  const flows = table({ forget: (flow) => forgotten.push(flow) });
  const first = flows.add(keyOf(1), 0, 0);
  const second = flows.add(keyOf(1), 0, 5);
  deepEqual([forgotten, flows.size, flows.find(keyOf(1), 5), flows.seenAt(second)], [[first], 1, second, 5]);
  flows.remove(second);
  equal(flows.size, 0);
});

Deno.test("FlowTable.oldestIn() returns the longest idle flow of a state", () => {
  const flows = table({ timeouts: [100, 100] });
  equal(flows.oldestIn(0), -1);
  const [high, first, second] = [
    flows.add(keyOf(1), 1, 0),
    flows.add(keyOf(2), 0, 1),
    flows.add(keyOf(3), 0, 2),
  ];
  deepEqual([flows.oldestIn(0), flows.oldestIn(1)], [first, high]);
  flows.touch(first, 3);
  equal(flows.oldestIn(0), second);
  flows.remove(high);
  equal(flows.oldestIn(1), -1);
});

Deno.test("FlowTable.newerThan() iterates over the flows of a state from the longest idle one", () => {
  const flows = table({ timeouts: [100, 100] });
  const [first, , second] = [
    flows.add(keyOf(1), 0, 0),
    flows.add(keyOf(2), 1, 1),
    flows.add(keyOf(3), 0, 2),
  ] as const;
  deepEqual([flows.newerThan(first), flows.newerThan(second)], [second, -1]);
  flows.touch(first, 3);
  deepEqual([flows.newerThan(second), flows.newerThan(first)], [first, -1]);
});

Deno.test("FlowTable.clear() frees all flows", () => {
  const flows = table({ forget: () => ok(false, "forgotten") });
  for (let i = 0; i < 4; i++) flows.add(keyOf(i), 0, 0);
  flows.clear();
  deepEqual([flows.size, flows.has(0), flows.find(keyOf(0), 0)], [0, false, -1]);
  for (let i = 4; i < 8; i++) flows.add(keyOf(i), 0, 0);
  equal(flows.size, 4);
});

Deno.test("FlowTable.remove() of an absent flow does nothing", () => {
  const flows = table({ capacity: 2 });
  const flow = flows.add(keyOf(1), 0, 0);
  flows.remove(flow);
  for (const none of [flow, 1 - flow, -1, 2]) flows.remove(none);
  equal(flows.size, 0);
  flows.add(keyOf(1), 0, 0);
  flows.add(keyOf(2), 0, 0);
  equal(flows.size, 2);
});

Deno.test("FlowTable.peek() agrees with find(), and removes nothing", () => {
  const flows = table();
  const flow = flows.add(keyOf(1), 0, 0);
  deepEqual([flows.peek(keyOf(1), 99), flows.peek(keyOf(1), 100), flows.peek(keyOf(2), 0)], [flow, -1, -1]);
  equal(flows.find(keyOf(1), 99), flow);
});

Deno.test("FlowTable throws for capacities and timeouts out of range", () => {
  for (const capacity of [0, 1.5, 2 ** 24 + 1, NaN]) throws(() => table({ capacity }), RangeError);
  for (const timeouts of [[], [0], [1, NaN]]) throws(() => table({ timeouts }), RangeError);
});

Deno.test("FlowTable.add() evicts by age among states of the lowest eviction priority", () => {
  const flows = table({ timeouts: [100, 100, 100], evictionPriorities: [0, 1, 0] });
  const first = flows.add(keyOf(0), 2, 0);
  flows.add(keyOf(1), 0, 1);
  flows.add(keyOf(2), 1, 0);
  const last = flows.add(keyOf(3), 2, 2);
  flows.add(keyOf(4), 1, 3);
  equal(flows.has(first) && flows.stateOf(first) === 2, false);
  flows.add(keyOf(5), 1, 4);
  equal(flows.find(keyOf(1), 4), -1);
  flows.add(keyOf(6), 1, 5);
  deepEqual([1, 2, 3, 4, 5, 6].map((number) => flows.find(keyOf(number), 5) >= 0), [
    ...[false, true, false, true, true, true],
  ]);
  ok(last >= 0);
  throws(() => table({ timeouts: [1, 2], evictionPriorities: [1] }), RangeError);
  throws(() => table({ timeouts: [1], evictionPriorities: [NaN] }), RangeError);
});
