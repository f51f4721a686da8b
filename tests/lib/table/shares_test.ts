/** Shares of a bounded table, beside a plain list. */

import { deepEqual, equal, ok } from "node:assert/strict";
import { Random } from "../../../lib/core/random.ts";
import { Shares } from "../../../lib/table/shares.ts";

const CAPACITY = 16;

Deno.test("Shares keeps each holder's entries in order, and finds the largest holder, like a plain list", () => {
  const random = new Random(0x54a7);
  const shares = new Shares(CAPACITY, 2, [1, 2]);
  const list: { entry: number; holder: number; group: number }[] = [];
  const words = new Uint32Array(1);
  for (let step = 0; step < 5000; step++) {
    const entry = random.below(CAPACITY);
    const at = list.findIndex((one) => one.entry === entry);
    if (at >= 0) {
      list.splice(at, 1);
      shares.remove(entry);
      equal(shares.holderAt(entry), -1);
    } else {
      words[0] = random.below(6);
      const group = random.below(2);
      const holder = shares.holderIn(words, 0, 4, group);
      shares.add(entry, holder);
      list.push({ entry, holder, group });
    }
    for (const group of [0, 1]) {
      const holders = new Set(list.filter((one) => one.group === group).map(({ holder }) => holder));
      const countOf = (holder: number) => list.filter((one) => one.holder === holder).length;
      const largest = shares.largest(group);
      equal(countOf(largest), Math.max(0, ...[...holders].map(countOf)));
      for (const holder of holders) {
        const entries = list.filter((one) => one.holder === holder).map((one) => one.entry);
        equal(shares.oldestOf(holder), entries[0]);
        const found: number[] = [];
        for (let one = shares.newestOf(holder); one >= 0; one = shares.before(one)) found.unshift(one);
        deepEqual(found, entries);
      }
    }
  }
});

Deno.test("Shares counts an IPv6 /64 as one holder, and each IPv4 address as one", () => {
  const shares = new Shares(4096);
  const words = new Uint32Array(5);
  const holders = (version: number, write: (i: number) => void) =>
    new Set(Array.from({ length: 100 }, (_, i) => {
      write(i);
      return shares.holderIn(words, 1, version);
    })).size;
  equal(holders(6, (i) => words[4] = i), 1);
  ok(holders(6, (i) => words[2] = i) > 80);
  ok(holders(4, (i) => words[1] = i) > 80);
});

Deno.test("Shares of a full table has a holder with at least two entries, for any addresses", () => {
  for (const capacity of [1, 2, 3, 4, 100, 128]) {
    const shares = new Shares(capacity);
    for (let entry = 0; entry < capacity; entry++) {
      shares.add(entry, shares.holderIn(Uint32Array.of(entry), 0, 4));
    }
    const largest = shares.largest();
    if (capacity > 1) ok(shares.oldestOf(largest) !== shares.newestOf(largest));
    else equal(shares.oldestOf(largest), 0);
  }
});
