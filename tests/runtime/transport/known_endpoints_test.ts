/** The endpoints that a UDP transport knows, beside the addresses that a bypass remembers. */

import { ok, strictEqual } from "node:assert/strict";
import { MAX_BYPASSED } from "../../../driver/bypass.ts";
import { Endpoint } from "../../../driver/udp_socket.ts";
import { Random } from "../../../lib/core/random.ts";
import { KnownEndpoints } from "../../../runtime/transport/known_endpoints.ts";
import { TestHost } from "../../kit/host.ts";

Deno.test("KnownEndpoints knows no endpoint whose address the bypass has forgotten, and one alone always", () => {
  const { pool } = new TestHost();
  const packet = pool.take(1)!;
  const random = new Random(7);
  for (const family of [4, 6] as const) {
    for (const peers of [1, 20, 100, 1000]) {
      const known = new KnownEndpoints(family);
      // As Bypass does: the address that was told the longest ago gives way.
      const bypassed = new Set<number>();
      let told = 0;
      for (let i = 0; i < 20_000; i++) {
        // One that is always there, between others.
        const peer = random.below(3) === 0 ? 1 : 1 + random.below(peers);
        const endpoint = new Uint8Array(Endpoint.Size);
        endpoint.set([peer >> 8, peer & 0xff], family === 4 ? Endpoint.Ipv4Address : Endpoint.Ipv6Address);
        packet.sendTo(endpoint);
        if (known.note(packet)) {
          ok(bypassed.has(peer), `${peer} of ${peers}`);
          continue;
        }
        told++;
        bypassed.delete(peer);
        bypassed.add(peer);
        if (bypassed.size > MAX_BYPASSED) bypassed.delete(bypassed.values().next().value!);
      }
      if (peers === 1) strictEqual(told, 1);
    }
  }
  pool.give(packet);
});
