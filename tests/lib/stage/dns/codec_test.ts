/** Complete messages through the library, in both directions. */

import assert from "node:assert/strict";
import { decodeMessage, type DnsMessage, DnsResolver, encodeMessage } from "@warren/tunnel/dns";
import { RESOLVER, Rig } from "./_ask.ts";

Deno.test("encodeMessage() encodes what decodeMessage() returned, without modifying it", () => {
  const message: DnsMessage = {
    type: "response",
    id: 7,
    flags: 0x0180,
    questions: [{ name: "a.example", type: "TXT" }],
    answers: [
      { name: "a.example", type: "TXT", ttl: 9, data: ["text", Uint8Array.of(0xff, 0)] },
      { name: "a.example", type: "UNKNOWN_65399", ttl: 9, data: Uint8Array.of(0xc0, 0xff, 0xee) },
      { name: "a.example", type: "A", ttl: 9, data: "192.0.2.7" },
    ],
    authorities: [{ name: "example", type: "NS", ttl: 9, data: "ns.example" }],
    additionals: [{ name: "ns.example", type: "AAAA", ttl: 9, data: "2001:db8::7" }],
  };
  const before = structuredClone(message);
  const bytes = encodeMessage(message);
  assert.deepEqual(message, before);
  const decoded = decodeMessage(bytes)!;
  assert.deepEqual(encodeMessage(decoded), bytes);
  assert.equal(bytes.constructor, Uint8Array);
  assert.deepEqual(decoded.answers!.map(({ type }) => type), ["TXT", "UNKNOWN_65399", "A"]);
});

Deno.test("encodeMessage() rejects data that does not fit its type", () => {
  assert.throws(() => encodeMessage({ answers: [{ name: "a", type: "TXT", data: 7 }] }), {
    name: "TypeError",
    message: /^Cannot encode a DNS message: /,
  });
});

Deno.test("DnsResolver does not modify the records in its options", async () => {
  const record = { name: "a.lan", type: "TXT", data: ["some", Uint8Array.of(0x74, 0x65, 0x78, 0x74)] };
  const before = structuredClone(record);
  const rig = new Rig(new DnsResolver({ address: RESOLVER, records: [record] }));
  assert.deepEqual((await rig.answer("a.lan", { type: "TXT" })).records, ["a.lan 60 TXT some|text"]);
  assert.deepEqual(record, before);
});
