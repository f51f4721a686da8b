/** Device options: accepted forms, and the errors of those refused. */

import assert from "node:assert/strict";
import { openDevice } from "../../driver/mod.ts";
import { checkDeviceOptions, parseRoute } from "../../driver/options.ts";
import { device } from "../../runtime/mod.ts";

Deno.test("parseRoute() reads a prefix and its attributes, in any order", () => {
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

Deno.test("checkDeviceOptions() accepts one or several addresses, routes and rules", () => {
  const { name, addresses, routes, rules, up } = checkDeviceOptions({
    address: "10.9.0.1/24",
    route: ["10.0.0.0/8", { to: "fd00::/8" }],
    rule: { table: 7 },
  });
  assert.deepEqual([name, addresses.length, routes.length, rules.length, up], ["tun%d", 1, 2, 1, true]);
  assert.deepEqual(addresses[0]!.length, 24);
  assert.deepEqual(rules[0]!.family, 4);
});

Deno.test("checkDeviceOptions() takes 1 to 256 queues", () => {
  assert.equal(checkDeviceOptions({}).queues, 1);
  assert.equal(checkDeviceOptions({ linux: { queues: 256 } }).queues, 256);
  for (const queues of [0, 257, 1.5, NaN]) {
    assert.throws(
      () => checkDeviceOptions({ linux: { queues } }),
      /^RangeError: Cannot open a device: linux\.queues must be an integer from 1 to 256, got /,
    );
  }
});

Deno.test("checkDeviceOptions() takes the names that Linux takes, and counts them in bytes", () => {
  const check = (name: string) => checkDeviceOptions({ name }, "linux").name;
  assert.equal(check("fifteen-bytes-x"), "fifteen-bytes-x");
  assert.equal(check('?*\\"<>|'), '?*\\"<>|');
  assert.throws(() => check("tünnel-für-alle"), /name must have at most 15 bytes, got 17$/);
  for (const name of ["", ".", "..", "a b", "a/b", "a:b", "a\u0000", "%s", "%d%d"]) {
    assert.throws(() => check(name), TypeError, name);
  }
});

Deno.test("checkDeviceOptions() takes the names that Windows takes, and counts them in UTF-16", () => {
  const check = (name: string) => checkDeviceOptions({ name }, "windows").name;
  for (
    const name of ["Tünnel für alle", "ü".repeat(127), "\u{1f600}".repeat(63), "Office %d", ".", "(a) #2"]
  ) {
    assert.equal(check(name), name);
  }
  assert.throws(() => check("x".repeat(128)), /name must have at most 127 UTF-16 code units, got 128$/);
  for (const character of '\\/:*?"<>|\0\t') {
    assert.throws(() => check(`a${character}b`), TypeError, character);
  }
  for (const name of ["", " ", " a", "a ", "a\ud83d", "%s", "%d%d"]) {
    assert.throws(() => check(name), TypeError, name);
  }
});

Deno.test("checkDeviceOptions() refuses mistyped names of routes and rules, and values of another type", () => {
  const refuses = (options: object, message: RegExp) =>
    assert.throws(() => checkDeviceOptions(options), message);
  refuses(
    { route: { too: "10.0.0.0/8" } },
    /^TypeError: Cannot route through a device: there is no option "too"/,
  );
  refuses({ route: {} }, /^TypeError: Cannot route through a device: to is missing$/);
  refuses({ rule: { table: 5, prio: 1 } }, /^TypeError: Cannot add a rule: there is no option "prio"/);
  refuses({ windows: { ring: 1 } }, /^TypeError: Cannot open a device: there is no option "windows\.ring"/);
  refuses(
    { address: 10.9 },
    /^TypeError: Cannot open a device: address must be a string or an array of strings, got 10.9$/,
  );
  refuses({ name: 5 }, /^TypeError: Cannot open a device: name must be a string, got 5$/);
  refuses({ up: "no" }, /^TypeError: Cannot open a device: up must be true or false, got "no"$/);
});

Deno.test("openDevice() and device() refuse a mistyped name", async () => {
  const mistyped = { adress: "10.9.0.1/24" } as object;
  await assert.rejects(openDevice(mistyped), /^TypeError: Cannot open a device: there is no option "adress"/);
  assert.throws(() => device(mistyped), /^TypeError: Cannot open a device: there is no option "adress"/);
});

Deno.test("checkDeviceOptions() refuses unknown options of a system, and switches that are not boolean", () => {
  for (
    const [linux, message] of [
      [
        { offlaod: false },
        'Cannot open a device: there is no option "linux.offlaod": options are txQueueLength, offload, uring, queues',
      ],
      [{ offload: "no" }, 'Cannot open a device: linux.offload must be true or false, got "no"'],
      [{ uring: 0 }, 'Cannot open a device: linux.uring must be true, false or "oneshot", got 0'],
      [{ offload: null }, "Cannot open a device: linux.offload must be true or false, got null"],
    ] as const
  ) {
    assert.throws(() => checkDeviceOptions({ linux: linux as object }), {
      name: "TypeError",
      message,
    });
  }
});
