/** Calls of `PacketPool.onRoom`. */

import assert from "node:assert/strict";
import { LARGE_ROOM, type Packet, PacketPool, SMALL_ROOM } from "../../../lib/core/mod.ts";

for (const [size, length] of [["small", SMALL_ROOM], ["large", LARGE_ROOM]] as const) {
  const makePool = () => {
    const pool = new PacketPool({ small: 2, large: 2 });
    let calls = 0;
    pool.onRoom = () => void calls++;
    return { pool, calls: () => calls };
  };
  const fill = (pool: PacketPool): Packet[] => [pool.take(length)!, pool.take(length)!];

  Deno.test(`PacketPool.onRoom is called once after a request for a ${size} slot failed`, () => {
    for (
      const ask of [(pool: PacketPool) => pool.take(length), (pool: PacketPool) => pool.available(length)]
    ) {
      const { pool, calls } = makePool();
      const [one, other] = fill(pool);
      assert.ok(!ask(pool));
      pool.give(one!);
      pool.give(other!);
      assert.equal(calls(), 1);
    }
  });

  Deno.test(`PacketPool.onRoom is not called while no request for a ${size} slot failed`, () => {
    const { pool, calls } = makePool();
    for (let i = 0; i < 3; i++) for (const packet of fill(pool)) pool.give(packet);
    const other = length === SMALL_ROOM ? LARGE_ROOM : SMALL_ROOM;
    while (pool.take(other) !== undefined);
    for (const packet of fill(pool)) pool.give(packet);
    assert.equal(calls(), 0);
  });
}
