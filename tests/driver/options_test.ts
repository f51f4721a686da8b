/** Device options as people write them. */

import assert from "node:assert/strict";
import { checkDeviceOptions, parseRoute } from "../../driver/options.ts";

Deno.test("parseRoute() reads a prefix and what follows it, in any order", () => {
  assert.deepEqual(parseRoute("10.0.0.0/8"), { to: "10.0.0.0/8" });
  assert.deepEqual(parseRoute("  default   table 7 metric 5  via 10.9.0.2 "), {
    to: "0.0.0.0/0",
    table: 7,
    metric: 5,
    via: "10.9.0.2",
  });
});

Deno.test("parseRoute() throws SyntaxError for anything else", () => {
  for (
    const text of ["10.0.0.0/8 via", "10.0.0.0/8 dev eth0", "10.0.0.0/8 metric 1e3", "10.0.0.0/8 table -1"]
  ) {
    assert.throws(() => parseRoute(text), SyntaxError, text);
  }
});

Deno.test("checkDeviceOptions() takes one or several of each", () => {
  const { name, addresses, routes, rules, up } = checkDeviceOptions({
    address: "10.9.0.1/24",
    route: ["10.0.0.0/8", { to: "fd00::/8" }],
    rule: { table: 7 },
  });
  assert.deepEqual([name, addresses.length, routes.length, rules.length, up], ["tun%d", 1, 2, 1, true]);
  assert.deepEqual(addresses[0]!.length, 24);
  assert.deepEqual(rules[0]!.family, 4);
});

Deno.test("checkDeviceOptions() counts a name in bytes, as the kernel does", () => {
  assert.equal(checkDeviceOptions({ name: "fifteen-bytes-x" }).name, "fifteen-bytes-x");
  assert.throws(() => checkDeviceOptions({ name: "tünnel-für-alle" }), /its name has 17 bytes/);
});
