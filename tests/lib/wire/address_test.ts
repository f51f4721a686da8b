/** Addresses and prefixes as text: the RFCs' examples, what is refused and where, round trips. */

import assert from "node:assert/strict";
import { isIPv4, isIPv6 } from "node:net";
import fc from "fast-check";
import {
  formatAddress,
  formatCidr,
  formatIpv4,
  formatIpv6,
  parseAddress,
  parseCidr,
  parseIpv4,
  parseIpv6,
  Prefix,
} from "../../../lib/wire/address.ts";

const SEED = { seed: 791, numRuns: 2000 };

const anyIpv4 = fc.nat(0xffffffff);
/** Sixteen bytes with runs of zeros, and now and then an embedded IPv4 address. */
const anyIpv6 = fc.oneof(
  fc.array(fc.oneof(fc.constant(0), fc.nat(0xffff)), { minLength: 8, maxLength: 8 }),
  fc.tuple(fc.nat(0xffff), fc.nat(0xffff)).map(([high, low]) => [0, 0, 0, 0, 0, 0xffff, high, low]),
).map((groups) => Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 255])));

function refuses(parse: (text: string) => unknown, text: string, message: string): void {
  assert.throws(() => parse(text), { name: "SyntaxError", message }, text);
}

Deno.test("parseIpv4() reads four octets as an unsigned number", () => {
  assert.equal(parseIpv4("0.0.0.0"), 0);
  assert.equal(parseIpv4("10.9.0.77"), 0x0a09004d);
  assert.equal(parseIpv4("255.255.255.255"), 0xffffffff);
});

Deno.test("parseIpv4() rejects anything but four decimal octets, with the column", () => {
  const cases: [string, string][] = [
    ["", "no digit at column 1"],
    ["1.2.3", "3 octets instead of 4 at column 6"],
    ["1.2.3.", "no digit at column 7"],
    ["1..3.4", "no digit at column 3"],
    ["1.2.3.4.5", '"." after the address at column 8'],
    ["1.2.3.4 ", '" " after the address at column 8'],
    [" 1.2.3.4", "no digit at column 1"],
    ["01.2.3.4", "a leading zero at column 1"],
    ["1.2.3.00", "a leading zero at column 7"],
    ["1.2.256.4", "an octet above 255 at column 5"],
    ["1.2.3.1111", "an octet above 255 at column 7"],
    ["0x7f.0.0.1", '"x" instead of a dot at column 2'],
    ["-1.2.3.4", "no digit at column 1"],
    ["1,2.3.4", '"," instead of a dot at column 2'],
    ["2130706433", "an octet above 255 at column 1"],
    ["١.2.3.4", "no digit at column 1"],
  ];
  for (const [text, what] of cases) {
    refuses(parseIpv4, text, `Cannot parse IPv4 address ${JSON.stringify(text)}: ${what}`);
  }
});

Deno.test("formatIpv4() writes what parseIpv4() reads", () => {
  fc.assert(
    fc.property(anyIpv4, (address) => {
      assert(isIPv4(formatIpv4(address)));
      assert.equal(parseIpv4(formatIpv4(address)), address);
    }),
    SEED,
  );
});

Deno.test("parseIpv4() accepts the same text as node:net's isIPv4()", () => {
  fc.assert(
    fc.property(fc.stringMatching(/^[0-9.]{5,16}$/), (text) => {
      let taken = true;
      try {
        parseIpv4(text);
      } catch (error) {
        assert(error instanceof SyntaxError);
        taken = false;
      }
      assert.equal(taken, isIPv4(text), text);
    }),
    SEED,
  );
});

Deno.test("parseIpv6() reads every form of RFC 4291 section 2.2", () => {
  const cases: [string, string][] = [
    ["ABCD:EF01:2345:6789:ABCD:EF01:2345:6789", "abcdef0123456789abcdef0123456789"],
    ["2001:DB8:0:0:8:800:200C:417A", "20010db80000000000080800200c417a"],
    ["2001:DB8::8:800:200C:417A", "20010db80000000000080800200c417a"],
    ["FF01::101", "ff010000000000000000000000000101"],
    ["::1", "00000000000000000000000000000001"],
    ["::", "00000000000000000000000000000000"],
    ["1::", "00010000000000000000000000000000"],
    ["0:0:0:0:0:0:13.1.68.3", "0000000000000000000000000d014403"],
    ["0:0:0:0:0:FFFF:129.144.52.38", "00000000000000000000ffff81903426"],
    ["::13.1.68.3", "0000000000000000000000000d014403"],
    ["::FFFF:129.144.52.38", "00000000000000000000ffff81903426"],
    ["1:2:3:4:5:6:7::", "00010002000300040005000600070000"],
    ["::2:3:4:5:6:7:8", "00000002000300040005000600070008"],
  ];
  for (const [text, bytes] of cases) assert.equal(hex(parseIpv6(text)), bytes, text);
});

Deno.test("parseIpv6() rejects anything but an address, with the column", () => {
  const cases: [string, string][] = [
    ["", "0 groups instead of 8 at column 1"],
    [":", '":" instead of a digit at column 1'],
    [":::", '":" instead of a digit at column 3'],
    ["1:2:3:4:5:6:7", "7 groups instead of 8 at column 14"],
    ["1:2:3:4:5:6:7:8:9", "more than 8 groups at column 17"],
    ["1:2:3:4:5:6:7:8:", "more than 8 groups at column 17"],
    ["1:2:3:4:5:6:7:8::", "a double colon beside 8 groups at column 16"],
    ["1:2:3:4::5:6:7:8", "a double colon beside 8 groups at column 8"],
    ["1::2::3", "a second double colon at column 5"],
    ["::1::", "a second double colon at column 4"],
    ["1:::2", '":" instead of a digit at column 4'],
    ["1:", "no digit at column 3"],
    [":1::", '":" instead of a digit at column 1'],
    ["::00001", "a group of more than 4 digits at column 3"],
    ["::g", '"g" instead of a digit at column 3'],
    ["fe80::1%eth0", '"%" instead of a colon at column 8'],
    [" ::1", '" " instead of a digit at column 1'],
    ["::1 ", '" " instead of a colon at column 4'],
    ["[::1]", '"[" instead of a digit at column 1'],
    ["::1.2.3", "3 octets instead of 4 at column 8"],
    ["::1.2.3.04", "a leading zero at column 9"],
    ["::1.2.3.4:5", '":" after the address at column 10'],
    ["1:2:3:4:5:6:7:1.2.3.4", "no room for an IPv4 address at column 15"],
    ["1.2.3.4", "2 groups instead of 8 at column 8"],
    ["::.1.2.3", '"." instead of a digit at column 3'],
  ];
  for (const [text, what] of cases) {
    refuses(parseIpv6, text, `Cannot parse IPv6 address ${JSON.stringify(text)}: ${what}`);
  }
});

Deno.test("parseIpv6() accepts the same text as node:net's isIPv6()", () => {
  const text = fc.oneof(
    fc.stringMatching(/^[0-9af:]{2,12}$/),
    fc.array(fc.constantFrom("", "0", "1", "abcd", ":", "::", "1.2.3.4"), { maxLength: 10 })
      .map((parts) => parts.join(":")),
  );
  fc.assert(
    fc.property(text, (text) => {
      let taken = true;
      try {
        assert.equal(parseIpv6(text).length, 16);
      } catch (error) {
        assert(error instanceof SyntaxError);
        taken = false;
      }
      assert.equal(taken, isIPv6(text), text);
    }),
    { ...SEED, numRuns: 20_000 },
  );
});

Deno.test("formatIpv6() writes the one form of RFC 5952 section 4", () => {
  const cases: [string, string][] = [
    ["2001:0db8::0001", "2001:db8::1"], // 4.1
    ["2001:db8:0:0:0:0:2:1", "2001:db8::2:1"], // 4.2.1
    ["2001:db8::0:1", "2001:db8::1"], // 4.2.1
    ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"], // 4.2.2
    ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"], // 4.2.3
    ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"], // 4.2.3
    ["2001:DB8:AAAA:BBBB:CCCC:DDDD:EEEE:00AA", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:aa"], // 4.3
    ["::ffff:c000:201", "::ffff:192.0.2.1"], // 5
    ["::c000:201", "::c000:201"],
    ["::", "::"],
    ["::1", "::1"],
    ["1::", "1::"],
    ["0:1::", "0:1::"],
  ];
  for (const [text, written] of cases) assert.equal(formatIpv6(parseIpv6(text)), written);
});

Deno.test("formatIpv6() writes what parseIpv6() reads, from any start", () => {
  fc.assert(
    fc.property(anyIpv6, fc.nat(40), (address, start) => {
      const bytes = new Uint8Array(60).fill(0xa5);
      bytes.set(address, start);
      const text = formatIpv6(bytes, start);
      assert(isIPv6(text));
      assert.deepEqual(parseIpv6(text), address);
      // The URL standard's serializer is RFC 5952's but for embedded IPv4 addresses.
      if (!text.includes(".")) assert.equal(new URL(`http://[${text}]`).hostname, `[${text}]`);
    }),
    SEED,
  );
});

Deno.test("parseAddress() and formatAddress() know both families", () => {
  assert.deepEqual(parseAddress("192.0.2.1"), { family: 4, bytes: Uint8Array.of(192, 0, 2, 1) });
  assert.deepEqual(parseAddress("::1").family, 6);
  for (const text of ["192.0.2.1", "0.0.0.0", "2001:db8::1", "::ffff:1.2.3.4"]) {
    assert.equal(formatAddress(parseAddress(text)), text);
  }
  refuses(parseAddress, "localhost", 'Cannot parse IPv4 address "localhost": no digit at column 1');
  refuses(parseAddress, "::x", 'Cannot parse IPv6 address "::x": "x" instead of a digit at column 3');
});

Deno.test("Prefix.network is a new address with no bits after the prefix", () => {
  for (
    const [prefix, first] of [
      ["10.9.77.255/20", "10.9.64.0"],
      ["255.255.255.255/0", "0.0.0.0"],
      ["10.9.0.1/32", "10.9.0.1"],
      ["fd00:1:2:ffff::1/49", "fd00:1:2:8000::"],
      ["fd00::1/128", "fd00::1"],
    ] as const
  ) {
    const parsed = parseCidr(prefix);
    parsed.network.bytes.fill(0xa5);
    assert.equal(formatAddress(parsed.network), first);
    assert.equal(formatCidr(parsed), prefix);
  }
});

Deno.test("parseCidr() keeps the bits after the prefix, and formatCidr() writes them", () => {
  for (const text of ["10.9.0.1/24", "0.0.0.0/0", "1.2.3.4/32", "2001:db8::1/64", "::/0", "::1/128"]) {
    assert.equal(formatCidr(parseCidr(text)), text);
  }
  assert.equal(parseCidr("10.9.0.1/24").length, 24);
});

Deno.test("parseCidr() rejects a bad address or length, with the column", () => {
  const cases: [string, string][] = [
    ["10.0.0.0", 'IPv4 prefix "10.0.0.0": no slash at column 9'],
    ["10.0.0.0/", 'IPv4 prefix "10.0.0.0/": no decimal length at column 10'],
    ["10.0.0.0/33", 'IPv4 prefix "10.0.0.0/33": a length above 32 at column 10'],
    ["10.0.0.0/08", 'IPv4 prefix "10.0.0.0/08": no decimal length at column 10'],
    ["10.0.0.0/8/8", 'IPv4 prefix "10.0.0.0/8/8": no decimal length at column 10'],
    ["10.0.0.0/255.0.0.0", 'IPv4 prefix "10.0.0.0/255.0.0.0": no decimal length at column 10'],
    ["10.0.0/8", 'IPv4 prefix "10.0.0/8": 3 octets instead of 4 at column 7'],
    ["/8", 'IPv4 prefix "/8": no digit at column 1'],
    ["::/129", 'IPv6 prefix "::/129": a length above 128 at column 4'],
    ["1::2::/64", 'IPv6 prefix "1::2::/64": a second double colon at column 5'],
    ["1:/64", 'IPv6 prefix "1:/64": no digit at column 3'],
    ["::/-1", 'IPv6 prefix "::/-1": no decimal length at column 4'],
  ];
  for (const [text, what] of cases) refuses(parseCidr, text, `Cannot parse ${what}`);
});

Deno.test("Prefix refuses a length that its family does not have", () => {
  for (const length of [-1, 33, 1.5, NaN]) {
    assert.throws(() => new Prefix(parseAddress("1.2.3.4"), length), RangeError);
  }
  assert.throws(() => new Prefix(parseAddress("::"), 129), RangeError);
});

Deno.test("Prefix.containsIpv4() agrees with a comparison bit by bit", () => {
  fc.assert(
    fc.property(anyIpv4, fc.nat(32), fc.nat(32), fc.boolean(), (address, length, flip, near) => {
      const prefix = new Prefix(parseAddress(formatIpv4(address)), length);
      const other = near ? (address ^ (flip === 32 ? 0 : 1 << 31 - flip)) >>> 0 : 0xa5a5a5a5;
      const first = address.toString(2).padStart(32, "0").slice(0, length);
      assert.equal(prefix.containsIpv4(other), other.toString(2).padStart(32, "0").startsWith(first));
      assert.equal(prefix.containsIpv6(new Uint8Array(16)), false);
    }),
    SEED,
  );
});

Deno.test("Prefix.containsIpv6() agrees with a comparison bit by bit, from any start", () => {
  const bits = (bytes: Uint8Array): string =>
    [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  fc.assert(
    fc.property(anyIpv6, fc.nat(128), fc.nat(128), fc.nat(9), (address, length, flip, start) => {
      const prefix = new Prefix({ family: 6, bytes: address }, length);
      const memory = new Uint8Array(32).fill(0xa5);
      memory.set(address, start);
      if (flip < 128) memory[start + (flip >> 3)]! ^= 0x80 >> (flip & 7);
      const other = memory.subarray(start, start + 16);
      assert.equal(
        prefix.containsIpv6(memory, start),
        bits(other).startsWith(bits(address).slice(0, length)),
      );
      assert.equal(prefix.containsIpv4(0), false);
    }),
    SEED,
  );
});

Deno.test("Parsers reject a value that is not a string", () => {
  for (const parse of [parseIpv4, parseIpv6, parseAddress, parseCidr]) {
    for (const text of [undefined, null, 10.9, ["10.9.0.1"]]) {
      assert.throws(
        () => parse(text as never),
        /^TypeError: Cannot parse [\w ]+: text must be a string, got .*$/,
      );
    }
  }
});

function hex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
