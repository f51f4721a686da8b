/** The table of routes beside a linear scan. */

import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { formatCidr, parseAddress, parseIpv4, Prefix } from "@warren/tunnel/address";
import { RouteTable } from "@warren/tunnel/route_table";
import { fullTable } from "../../kit/prefixes.ts";
import { Random } from "../../../lib/core/random.ts";

/** Expected result: a linear scan over all prefixes. */
class Scan {
  readonly #routes = new Map<string, [Prefix, number]>();

  get size(): number {
    return this.#routes.size;
  }

  get all(): [string, number][] {
    return Array.from(this.#routes, ([name, [, value]]): [string, number] => [name, value]).sort();
  }

  set(prefix: Prefix, value: number): void {
    this.#routes.set(nameOf(prefix), [prefix, value]);
  }

  delete(prefix: Prefix): boolean {
    return this.#routes.delete(nameOf(prefix));
  }

  find(bytes: Uint8Array): number | undefined {
    let [longest, found]: [number, number | undefined] = [-1, undefined];
    for (const [prefix, value] of this.#routes.values()) {
      const isIn = bytes.length === 4
        ? prefix.containsIpv4(new DataView(bytes.buffer).getUint32(0))
        : prefix.containsIpv6(bytes);
      if (isIn && prefix.length > longest) [longest, found] = [prefix.length, value];
    }
    return found;
  }
}

function nameOf(prefix: Prefix): string {
  return formatCidr(new Prefix(prefix.network, prefix.length));
}

/** Addresses that have much in common. */
function bytes(random: Random, length: 4 | 16): Uint8Array {
  const choices = random.below(4) === 0 ? 256 : 3;
  return Uint8Array.from({ length }, () => random.below(choices));
}

function find(table: RouteTable<number>, address: Uint8Array): number | undefined {
  return address.length === 4
    ? table.findIpv4(new DataView(address.buffer).getUint32(0))
    : table.findIpv6(address);
}

for (const [family, length] of [[4, 4], [6, 16]] as const) {
  for (const seed of [1, 2, 3]) {
    Deno.test(`RouteTable finds what a scan of all IPv${family} prefixes finds, seed ${seed}`, () => {
      const random = new Random(seed);
      const table = new RouteTable<number>();
      const scan = new Scan();
      const known: Prefix[] = [];
      for (let step = 0; step < 3000; step++) {
        const isOld = known.length > 0 && random.below(3) === 0;
        const prefix = isOld
          ? known[random.below(known.length)]!
          : new Prefix({ family, bytes: bytes(random, length) }, random.below(length * 8 + 1));
        if (random.below(5) < 2) equal(table.delete(prefix), scan.delete(prefix));
        else {
          const value = random.below(20);
          table.set(prefix, value);
          scan.set(prefix, value);
          known.push(prefix);
          equal(table.get(prefix), value);
        }
        equal(table.size, scan.size);
        for (const address of [bytes(random, length), prefix.address.bytes, prefix.network.bytes]) {
          equal(find(table, address), scan.find(address), `step ${step}`);
        }
      }
      const listed = Array.from(table, ([prefix, value]): [string, number] => [formatCidr(prefix), value])
        .sort();
      deepEqual(listed, scan.all);
      for (const prefix of known) table.delete(prefix);
      equal(table.size, 0);
      for (let i = 0; i < 1000; i++) equal(find(table, bytes(random, length)), undefined);
    });
  }
}

Deno.test("RouteTable has routes of all lengths over one address, the longest first", () => {
  for (const [text, most] of [["10.9.8.7", 32], ["2001:db8:1:2:3:4:5:6", 128]] as const) {
    const table = new RouteTable<number>();
    const address = parseAddress(text);
    for (let length = 0; length <= most; length++) {
      table.set(new Prefix(address, length), length);
      equal(find(table, address.bytes), length);
    }
    for (let length = most; length >= 0; length--) {
      equal(find(table, address.bytes), length);
      table.delete(new Prefix(address, length));
    }
    equal(find(table, address.bytes), undefined);
  }
});

Deno.test("RouteTable reuses the memory of deleted routes", () => {
  const table = new RouteTable<number>();
  const prefixes = [...fullTable(5000, 3)];
  let taken = 0;
  for (let round = 0; round < 5; round++) {
    for (const prefix of prefixes) table.set(prefix, round);
    if (round === 0) taken = table.byteLength;
    for (const prefix of prefixes) ok(table.delete(prefix));
  }
  equal(table.byteLength, taken);
});

Deno.test("RouteTable takes the Internet's 900,000 prefixes in less than 100 MB", () => {
  const table = new RouteTable<number>();
  const exact = new Map<string, number>();
  for (const prefix of fullTable(900_000, 1)) {
    const value = table.size % 300;
    table.set(prefix, value);
    exact.set(nameOf(prefix), value);
  }
  equal(table.size, 900_000);
  ok(table.byteLength < 100e6, `${table.byteLength} bytes`);
  const random = new Random(9);
  // The first that is found from the longest length on.
  for (let i = 0; i < 2000; i++) {
    const address = { family: 4 as const, bytes: Uint8Array.from({ length: 4 }, () => random.below(224)) };
    let expected: number | undefined;
    for (let length = 32; length >= 0 && expected === undefined; length--) {
      expected = exact.get(nameOf(new Prefix(address, length)));
    }
    equal(find(table, address.bytes), expected);
  }
});

Deno.test("RouteTable takes text, and ignores bits after the prefix", () => {
  const table = new RouteTable<string>();
  table.set("10.9.0.1/24", "a");
  equal(table.get("10.9.0.0/24"), "a");
  table.set("10.9.0.0/24", "b");
  deepEqual([table.size, table.findIpv4(parseIpv4("10.9.0.255")), table.delete("10.9.0.7/24")], [
    1,
    "b",
    true,
  ]);
  throws(() => table.set("10.9.0.0", "c"), SyntaxError);
});

Deno.test("RouteTable throws when it is full, and keeps its routes", () => {
  const table = new RouteTable<string>({ capacity: 2 });
  table.set("10.0.0.0/8", "a");
  table.set("fd00::/8", "b");
  throws(
    () => table.set("0.0.0.0/0", "c"),
    /^RangeError: Cannot add route 0\.0\.0\.0\/0: the table is full with 2 routes: raise its capacity$/,
  );
  table.set("10.0.0.0/8", "d");
  deepEqual([table.size, table.get("10.0.0.0/8")], [2, "d"]);
  for (const capacity of [0, 1.5, NaN]) throws(() => new RouteTable({ capacity }), RangeError);
});

Deno.test("RouteTable restores a saved state, and rejects any other", () => {
  const table = new RouteTable<string>();
  for (const text of ["0.0.0.0/0", "10.9.0.0/24", "fd00::/8"]) table.set(text, text);
  const state = JSON.parse(JSON.stringify(table.save()));
  const restored = new RouteTable<string>();
  restored.set("192.0.2.0/24", "before");
  restored.restore(state);
  deepEqual(new Map(Array.from(restored, ([prefix, value]) => [formatCidr(prefix), value])).size, 3);
  equal(restored.findIpv4(parseIpv4("192.0.2.1")), "0.0.0.0/0");
  for (const other of [null, {}, { ...state, routes: [["10.0.0.0/8"]] }, { ...state, format: "x" }]) {
    throws(() => restored.restore(other), TypeError);
  }
  throws(() => restored.restore({ ...state, routes: [["10.0.0.0/33", "x"]] }), SyntaxError);
  equal(restored.size, 3);
});

Deno.test("RouteTable keeps its routes when a saved state has more than it can hold", () => {
  const large = new RouteTable<string>();
  for (const prefix of ["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"]) large.set(prefix, prefix);
  const small = new RouteTable<string>({ capacity: 2 });
  small.set("192.0.2.0/24", "before");
  throws(() => small.restore(large.save()), {
    name: "RangeError",
    message: "Cannot restore routes: state must have at most 2 routes, got 3",
  });
  equal(small.findIpv4(parseIpv4("192.0.2.1")), "before");
  equal(small.size, 1);
});
