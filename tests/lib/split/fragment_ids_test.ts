/** Identifications of fragmented packets. */

import { deepEqual, equal, ok } from "node:assert/strict";
import { FragmentIds } from "../../../lib/split/fragment_ids.ts";

const SRC = 0xc6336401;
const UDP = 17;

Deno.test("FragmentIds gives a destination consecutive identifications, and none twice in 65,536", () => {
  const ids = new FragmentIds([1, 2]);
  const start = ids.startOfIpv4(SRC, 0xc0000201, UDP);
  const given = new Set<number>();
  const first = ids.next(start);
  given.add(first & 0xffff);
  for (let i = 1; i < 65_536; i++) {
    const id = ids.next(start);
    equal(id, first + i >>> 0);
    given.add(id & 0xffff);
  }
  equal(given.size, 65_536);
  equal(ids.next(start, 10), first + 65_536 >>> 0);
  equal(ids.next(start), first + 65_546 >>> 0);
});

Deno.test("FragmentIds reveals nothing to a destination about traffic to another", () => {
  let seen = 0;
  for (let key = 0; key < 200; key++) {
    const ids = new FragmentIds([key, 7]);
    const [mine, other] = [ids.startOfIpv4(SRC, 0xc0000201, UDP), ids.startOfIpv4(SRC, 0xc0000202, UDP)];
    const before = ids.next(mine);
    for (let i = 0; i < 100; i++) ids.next(other);
    if (ids.next(mine) !== before + 1 >>> 0) seen++;
  }
  ok(seen <= 2, `${seen} of 200 keys had both share a counter`);
});

Deno.test("FragmentIds starts at a different id for each address, protocol and key", () => {
  const view = new DataView(new ArrayBuffer(8));
  view.setUint32(0, SRC);
  view.setUint32(4, 0xc0000201);
  const ids = new FragmentIds([1, 2]);
  const start = ids.startOfIpv4(SRC, 0xc0000201, UDP);
  equal(ids.startOf(view, 0, 2, UDP), start);
  const others = [
    ids.startOfIpv4(SRC, 0xc0000202, UDP),
    ids.startOfIpv4(SRC + 1, 0xc0000201, UDP),
    ids.startOfIpv4(SRC, 0xc0000201, 6),
    new FragmentIds([1, 3]).startOfIpv4(SRC, 0xc0000201, UDP),
    new FragmentIds().startOfIpv4(SRC, 0xc0000201, UDP),
  ];
  deepEqual(new Set([start, ...others]).size, 6);
});
