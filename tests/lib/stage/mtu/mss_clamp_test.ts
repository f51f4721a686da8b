/** The clamped MSS: wrong options, partial checksums, and any bytes at all. */

import { equal, ok, throws } from "node:assert/strict";
import { Direction, type Stage } from "@warren/tunnel/core";
import { mssClamp, type MssClampOptions } from "@warren/tunnel/mss_clamp";
import { Tcp } from "@warren/tunnel/tcp";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { survive } from "../../../kit/hostile.ts";
import { encodeIp, makePartial, packetOf, wrongChecksum } from "../../../kit/packets.ts";

Deno.test("mssClamp() rejects wrong options", () => {
  throws(() => mssClamp({} as MssClampOptions), TypeError);
  throws(() => mssClamp({ mss: 1200, mtu: 1240 }), TypeError);
  for (const mtu of [67, 65_536, 1400.5, NaN]) throws(() => mssClamp({ mtu }), RangeError);
  throws(() => mssClamp({ mss: 0 }), RangeError);
});

for (const version of [4, 6] as const) {
  Deno.test(`mssClamp() lowers the MSS of an IPv${version} SYN with a partial checksum`, () => {
    const packet = packetOf([]);
    // The option starts at an odd place.
    const options = Uint8Array.of(1, 2, 4, 5, 180, 0);
    Tcp.encode(packet, { srcPort: 5000, dstPort: 80, seq: 1, flags: Tcp.Syn, options });
    encodeIp(packet, version, 6);
    const header = version === 4 ? 20 : 40;
    makePartial(packet, packet.offset + header, 16);
    const partial: Stage = {
      name: "partial",
      outbound(batch) {
        for (const given of batch) [given.checksumStart, given.checksumOffset] = [header, 16];
      },
    };
    const test = new TestPipeline(partial, mssClamp({ mss: 1200 }));
    test.send(Direction.Outbound, packet.data);
    test.settle();
    const [clamped] = test.receive().far;
    equal(wrongChecksum(clamped!), "");
    equal(Tcp.of(packetOf(clamped!))!.mss, 1200);
  });
}

Deno.test("mssClamp() never throws and loses no packet, whatever bytes come", () => {
  ok(survive(mssClamp({ mtu: 1000 }), 0x355, 20_000) >= 20_000);
});
