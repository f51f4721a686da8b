/** Names in wire format: to text and back, and against the library. */

import assert from "node:assert/strict";
import { decodeMessage, encodeMessage } from "@warren/tunnel/dns";
import {
  formatName,
  isWithin,
  nameLength,
  parseName,
  reversedAddress,
  reverseName,
  skipName,
  toAscii,
} from "../../../../lib/stage/dns/name.ts";
import { parseAddress } from "../../../../lib/wire/address.ts";
import { Random } from "../../../../lib/core/random.ts";

/** A name of any bytes, in lower case. */
function anyName(random: Random): Uint8Array {
  const bytes: number[] = [];
  for (let labels = random.below(5); labels > 0; labels--) {
    const length = 1 + random.below(random.below(8) === 0 ? 63 : 6);
    if (bytes.length + length + 2 > 255) break;
    bytes.push(length);
    for (let i = 0; i < length; i++) {
      const byte = random.below(3) === 0 ? random.below(256) : 0x61 + random.below(26);
      bytes.push(byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte);
    }
  }
  return Uint8Array.from([...bytes, 0]);
}

Deno.test("parseName() parses what formatName() wrote", () => {
  const random = new Random(1035);
  for (let round = 0; round < 20_000; round++) {
    const name = anyName(random);
    const text = formatName(name);
    assert.match(text, /^[\x21-\x7e]+$/);
    assert.deepEqual(parseName(text), name, text);
    if (text !== ".") {
      assert.deepEqual(parseName(`${text.toUpperCase()}.`), name, text);
    }
  }
});

Deno.test("parseName() writes plain names as the library does", () => {
  for (const name of ["a", "www.example.com", "_dmarc.x-y.example", "x".repeat(63), `${"a.".repeat(126)}a`]) {
    const message = encodeMessage({ questions: [{ name, type: "A" }] });
    assert.deepEqual(message.subarray(12, -4), parseName(name), name);
    assert.equal(nameLength(message, 12, message.length), message.length - 16);
    assert.equal(decodeMessage(message)!.questions![0]!.name, formatName(message, 12));
  }
});

Deno.test("parseName() rejects text that is not a name", () => {
  const wrong = [
    "",
    "..",
    ".a",
    "a..b",
    "x".repeat(64),
    `${"a.".repeat(127)}a`,
    "a\\",
    "a\\99",
    "a\\999",
    "日本\u{1f600} x",
  ];
  for (const text of wrong) assert.throws(() => parseName(text), SyntaxError, text);
});

Deno.test("toAscii() makes Punycode of letters beyond ASCII, and leaves the rest", () => {
  assert.equal(toAscii("bücher.example"), "xn--bcher-kva.example");
  assert.equal(toAscii("_dmarc.BÜCHER.example"), "_dmarc.xn--bcher-kva.example");
  assert.equal(toAscii("Plain_Name"), "Plain_Name");
  assert.equal(toAscii("bü cher/x"), "bü cher/x");
});

Deno.test("nameLength() and skipName() reject names that are truncated, too long, or point forward", () => {
  const at = (...bytes: number[]) => Uint8Array.from(bytes);
  assert.equal(nameLength(at(1, 97, 0), 0, 3), 3);
  assert.equal(nameLength(at(1, 97, 0), 0, 2), -1);
  assert.equal(nameLength(at(5, 97, 0), 0, 3), -1);
  assert.equal(nameLength(at(0xc0, 0), 0, 2), -1);
  assert.equal(nameLength(new Uint8Array(300).fill(1), 0, 300), -1);
  assert.equal(skipName(at(0, 0, 1, 97, 0xc0, 0), 2, 6), 6);
  assert.equal(skipName(at(0, 0, 1, 97, 0xc0, 0), 2, 5), -1);
  assert.equal(skipName(at(0, 0, 1, 97, 0xc0, 2), 2, 6), -1);
  assert.equal(skipName(at(9, 9, 0, 0xc0, 0), 3, 5, 2), 5);
  assert.equal(skipName(at(9, 9, 0, 0xc0, 1), 3, 5, 2), -1);
  assert.equal(skipName(at(0x40, 0), 0, 2), -1);
  assert.equal(skipName(new Uint8Array(300).fill(1), 0, 300), -1);
});

Deno.test("isWithin() goes by whole labels", () => {
  const within = (name: string, suffix: string) =>
    isWithin(parseName(name), parseName(name).length, parseName(suffix));
  assert.equal(within("a.b.example", "b.example"), true);
  assert.equal(within("b.example", "b.example"), true);
  assert.equal(within("ab.example", "b.example"), false);
  assert.equal(within("example", "b.example"), false);
  assert.equal(within("example", "."), true);
  assert.equal(within(".", "example"), false);
});

Deno.test("reversedAddress() is the inverse of reverseName()", () => {
  for (const text of ["192.0.2.1", "0.0.0.0", "255.255.255.255", "2001:db8::567:89ab", "::"]) {
    const { bytes } = parseAddress(text);
    assert.deepEqual(parseAddress(reversedAddress(reverseName(bytes))!).bytes, bytes);
  }
  // RFC 3596 section 2.5
  assert.equal(
    reverseName(parseAddress("4321:0:1:2:3:4:567:89ab").bytes),
    "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa",
  );
  for (
    const name of [
      "1.2.3.in-addr.arpa",
      "256.1.1.1.in-addr.arpa",
      "01.1.1.1.in-addr.arpa",
      "1.ip6.arpa",
      "arpa",
    ]
  ) {
    assert.equal(reversedAddress(name), undefined, name);
  }
});
