/** Block lists: parsing, and lookups against a linear scan. */

import assert from "node:assert/strict";
import { BlockList } from "@warren/tunnel/dns";
import { Random } from "../../../../lib/core/random.ts";

Deno.test("BlockList.parse() reads names, wildcards, hosts files and ad blockers' lines", () => {
  const list = BlockList.parse(
    [
      "# a comment",
      "! another one",
      "",
      "plain.example   # and why",
      "*.below.example",
      "||blocker.example^",
      "0.0.0.0 hosts.example other.example\t# two",
      "127.0.0.1 localhost",
      "::1 ip6-localhost ip6-loopback",
      ":: six.example",
      "UPPER.Example.",
      "_dmarc.under_score.example",
      "bücher.example",
      "  indented.example\r",
    ].join("\n"),
  );
  assert.deepEqual(list.warnings, []);
  assert.deepEqual([...list], [
    "plain.example",
    "*.below.example",
    "blocker.example",
    "hosts.example",
    "other.example",
    "six.example",
    "upper.example",
    "_dmarc.under_score.example",
    "xn--bcher-kva.example",
    "indented.example",
  ]);
  const blocked = [
    "plain.example",
    "a.plain.example",
    "a.below.example",
    "x.y.blocker.example",
    "hosts.example",
  ];
  blocked.push(
    "other.example",
    "SIX.example",
    "upper.example",
    "bücher.example",
    "www.xn--bcher-kva.example",
  );
  for (const name of blocked) assert.equal(list.has(name), true, name);
  const free = [
    "below.example",
    "www.hosts.example",
    "example",
    "notplain.example",
    "plain.example.org",
    "",
    ".",
  ];
  free.push("localhost", "a..b", "x".repeat(64), `${"a.".repeat(130)}plain.example`);
  for (const name of free) assert.equal(list.has(name), false, name);
});

Deno.test("BlockList.parse() reports skipped lines by number", () => {
  const lines = [
    "good.example",
    "192.0.2.1 somewhere.example",
    "two words",
    "a..b",
    `${"x".repeat(64)}.example`,
    "10.0.0.1",
    "ex*mple.org",
    "0.0.0.0 good.example b@d.example",
    ".",
    "http://example.org/path",
    "||example.org^$third-party",
  ];
  const list = BlockList.parse(lines.join("\n"));
  assert.deepEqual(list.warnings.map(({ line }) => line), [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  assert.match(
    list.warnings[0]!.message,
    /^a blocked name must have an address such as 0\.0\.0\.0, got 192\.0\.2\.1$/,
  );
  assert.match(list.warnings[3]!.message, /longer than 63/);
  assert.equal(list.skipped, 10);
  assert.equal(list.size, 1);
  const many = BlockList.parse("a..b\n".repeat(1000));
  assert.deepEqual([many.warnings.length, many.skipped], [100, 1000]);
});

Deno.test("BlockList.parse() with `match` takes bare names as exact, or as the names below", () => {
  const exact = BlockList.parse("a.example\n", { match: "exact" });
  assert.deepEqual([exact.has("a.example"), exact.has("b.a.example")], [true, false]);
  const below = BlockList.parse("a.example\n", { match: "below" });
  assert.deepEqual([below.has("a.example"), below.has("b.a.example")], [false, true]);
  below.add("A.example", "exact");
  assert.deepEqual([below.has("a.example"), below.has("b.a.example"), below.size], [true, true, 1]);
});

Deno.test("BlockList rejects invalid options", () => {
  const match = "Exact" as "exact";
  assert.throws(
    () => new BlockList([], { match }),
    /match must be "exact", "suffix" or "below", got "Exact"/,
  );
  assert.throws(() => BlockList.parse("", { match }), TypeError);
  assert.throws(() => new BlockList().add("a.example", match), TypeError);
  assert.throws(() => BlockList.parse("", { macht: "exact" } as object), /there is no option "macht"/);
});

Deno.test("BlockList.warnings have no control characters, and are short", () => {
  const list = BlockList.parse(`a\x1b]0;x\x07.example\n\x9b2J.b c\n${"a".repeat(100_000)}\n`);
  assert.equal(list.warnings.length, 3);
  for (const { message } of list.warnings) {
    // deno-lint-ignore no-control-regex
    assert.match(message, /^[^\x00-\x1f\x7f-\x9f]{1,160}$/);
  }
});

Deno.test("BlockList rejects text that is not a name", () => {
  for (const name of ["", ".", "a..b", "a b", "x".repeat(64), "a/b"]) {
    assert.throws(() => new BlockList().add(name), SyntaxError, name);
  }
  assert.throws(() => new BlockList(["a..b"]), SyntaxError);
  assert.throws(() => new BlockList("two.example\nnames.example"), SyntaxError);
  assert.deepEqual([...new BlockList("ads.example")], ["ads.example"]);
});

Deno.test("BlockList.has() agrees with a linear scan of all rules", () => {
  const random = new Random(53);
  const labels = ["a", "b", "c", "dd", "eee"];
  const name = () =>
    Array.from({ length: 1 + random.below(4) }, () => labels[random.below(labels.length)]!).join(".");
  for (let round = 0; round < 200; round++) {
    const list = new BlockList();
    const rules: [name: string, match: string][] = [];
    for (let i = random.below(20); i > 0; i--) {
      const match = (["exact", "suffix", "below"] as const)[random.below(3)]!;
      const rule = name();
      list.add(rule, match);
      rules.push([rule, match]);
    }
    for (let i = 0; i < 100; i++) {
      const asked = name();
      const expected = rules.some(([rule, match]) =>
        match !== "below" && asked === rule || match !== "exact" && asked.endsWith(`.${rule}`)
      );
      assert.equal(list.has(asked), expected, `${asked} in ${rules.join(" ")}`);
    }
    assert.equal(list.size, new Set(rules.map(([rule]) => rule)).size);
  }
});

Deno.test("BlockList keeps 200,000 names in less than 60 bytes each, and finds them all", () => {
  let text = "";
  for (let i = 0; i < 200_000; i++) text += `host${i * 7919}.ads${i % 977}.example.com\n`;
  const list = BlockList.parse(text);
  assert.equal(list.size, 200_000);
  assert.ok(list.bytes < 200_000 * 60, `${list.bytes}`);
  for (let i = 0; i < 200_000; i += 97) {
    assert.ok(list.has(`host${i * 7919}.ads${i % 977}.example.com`));
    assert.ok(!list.has(`host${i * 7919 + 1}.ads${i % 977}.example.com`));
  }
});
