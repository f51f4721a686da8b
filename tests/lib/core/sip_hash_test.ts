/** The hash beside the kernel's vectors. */

import { equal } from "node:assert/strict";
import { sipHash } from "../../../lib/core/sip_hash.ts";

Deno.test("sipHash() gives Linux's test vectors (lib/tests/siphash_kunit.c)", () => {
  const words = new Uint32Array(Uint8Array.from({ length: 64 }, (_, i) => i).buffer);
  const vectors = [0x5814c896, 0x7e059ea6, 0x577999b1, 0x6b28096c];
  vectors.forEach((vector, length) => {
    equal(sipHash(words, length, 0x03020100, 0x07060504) >>> 0, vector, `${length} words`);
  });
});
