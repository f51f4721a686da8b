/** IPv4-embedded IPv6 addresses, by the examples of RFC 6052. */

import { equal, ok, throws } from "node:assert/strict";
import { formatIpv6, parseIpv4, parseIpv6 } from "@warren/tunnel/address";
import { EmbeddingPrefix } from "@warren/tunnel/nat64";

/** RFC 6052 section 2.4, tables 2 and 3. */
const EXAMPLES = [
  ["2001:db8::/32", "2001:db8:c000:221::"],
  ["2001:db8:100::/40", "2001:db8:1c0:2:21::"],
  ["2001:db8:122::/48", "2001:db8:122:c000:2:2100::"],
  ["2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"],
  ["2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"],
  ["2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"],
  ["64:ff9b::/96", "64:ff9b::192.0.2.33"],
] as const;

for (const [prefix, address] of EXAMPLES) {
  Deno.test(`EmbeddingPrefix writes and reads the example of RFC 6052 for ${prefix}`, () => {
    const embedding = new EmbeddingPrefix(prefix);
    const bytes = new Uint8Array(20).fill(0xa5);
    embedding.write(parseIpv4("192.0.2.33"), bytes, 2);
    equal(formatIpv6(bytes, 2), formatIpv6(parseIpv6(address)));
    equal(embedding.read(bytes, 2), parseIpv4("192.0.2.33"));
    ok(embedding.contains(bytes, 2));
    bytes[2] ^= 1;
    ok(!embedding.contains(bytes, 2));
    ok(bytes[1] === 0xa5 && bytes[18] === 0xa5);
  });
}

Deno.test("EmbeddingPrefix.contains() requires bits 64 to 71 to be zero", () => {
  const embedding = new EmbeddingPrefix("2001:db8::/32");
  ok(embedding.contains(parseIpv6("2001:db8:c000:221::1")));
  ok(!embedding.contains(parseIpv6("2001:db8:c000:221:100::1")));
});

Deno.test("EmbeddingPrefix refuses prefixes that RFC 6052 does not allow", () => {
  throws(() => new EmbeddingPrefix("2001:db8::/33"), RangeError);
  throws(() => new EmbeddingPrefix("2001:db8::/128"), RangeError);
  throws(() => new EmbeddingPrefix("2001:db8:0:0:100::/96"), RangeError);
  throws(() => new EmbeddingPrefix("192.0.2.0/24"), TypeError);
  throws(() => new EmbeddingPrefix("2001:db8:/32"), SyntaxError);
});
