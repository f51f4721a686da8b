/** The order of the house, held against small files that break it. */

import { deepStrictEqual, ok } from "node:assert/strict";
import config from "../../deno.json" with { type: "json" };
import layers from "./layers.ts";

const DOC = "/** A file. */\n";

/** What the plugin says of a file at this place: each finding's rule and message. */
function findings(place: string, source: string): string[] {
  const filename = decodeURI(new URL(`../../${place}`, import.meta.url).pathname);
  return Deno.lint.runPlugin(layers, filename, source).map(({ id, message }) => `${id}: ${message}`);
}

function isClean(place: string, source: string): void {
  deepStrictEqual(findings(place, DOC + source), []);
}

function breaks(place: string, source: string, ...expected: string[]): void {
  deepStrictEqual(findings(place, DOC + source), expected);
}

const UPWARD = "scripts → runtime → driver → lib, never upward";

Deno.test("deno.json has the layers checked by deno lint", () => {
  ok("plugins" in config.lint);
  deepStrictEqual(config.lint.plugins, ["./tests/gate/layers.ts"]);
});

Deno.test("a lower floor never imports a higher one, in whatever form", () => {
  isClean(
    "runtime/loop.ts",
    'import { a } from "../driver/mod.ts"; import b from "../lib/core/mod.ts"; a(b);',
  );
  isClean("tests/lib/ip_test.ts", 'export * from "../../runtime/mod.ts";');
  breaks(
    "lib/ip.ts",
    'import { a } from "../driver/mod.ts"; a();',
    `warren/floors: lib/ imports driver/mod.ts: ${UPWARD}`,
  );
  for (
    const form of [
      'export * from "../../runtime/engine/loop.ts";',
      'export { a } from "../../runtime/engine/loop.ts";',
      'import type { A } from "../../runtime/engine/loop.ts"; export const a: A = 1;',
      'export type A = import("../../runtime/engine/loop.ts").A;',
      'await import("../../runtime/engine/loop.ts");',
    ]
  ) {
    breaks(
      "driver/linux/device.ts",
      form,
      `warren/floors: driver/ imports runtime/engine/loop.ts: ${UPWARD}`,
    );
  }
  breaks(
    "runtime/a.ts",
    'import "../tests/kit/system.ts";',
    `warren/floors: runtime/ imports tests/kit/system.ts: ${UPWARD}`,
  );
  breaks("runtime/a.ts", 'import "../deno.ts";', `warren/floors: runtime/ imports deno.ts: ${UPWARD}`);
});

Deno.test("a system's folder of the driver is imported dynamically, or as types", () => {
  const message = "driver/linux/ is for one system: import it dynamically, or its types alone";
  isClean("driver/mod.ts", 'await import("./linux/device.ts"); export type { A } from "./linux/device.ts";');
  isClean("driver/linux/device.ts", 'import { libc } from "./libc.ts"; libc();');
  isClean("tests/driver/linux/errno_test.ts", 'import "../../../driver/linux/errno.ts";');
  breaks("driver/mod.ts", 'import "./linux/device.ts";', `warren/floors: ${message}`);
  breaks("runtime/loop.ts", 'export * from "../driver/linux/waiter.ts";', `warren/floors: ${message}`);
  breaks("driver/windows/device.ts", 'import "../linux/errno.ts";', `warren/floors: ${message}`);
  isClean("driver/macos/device.ts", 'import "../bsd/device.ts";');
});

Deno.test("inside a layer, a folder imports those before it alone", () => {
  isClean("lib/stage/nat/napt44.ts", 'import "../../table/flow_table.ts"; import "../../core/mod.ts";');
  isClean("runtime/mod.ts", 'export * from "./cli/main.ts";');
  isClean("runtime/cli/run.ts", 'import "../mod.ts";');
  const lib = "inside lib/, core < wire < end, split, table, filter < icmp, pcap, vpn < stage";
  breaks(
    "lib/core/packet.ts",
    'import type { Ipv4 } from "../wire/ipv4.ts"; export type A = Ipv4;',
    `warren/floors: lib/core/ imports lib/wire/ipv4.ts: ${lib}`,
  );
  breaks(
    "lib/filter/mod.ts",
    'await import("../table/flow_key.ts");',
    `warren/floors: lib/filter/ imports lib/table/flow_key.ts: ${lib}`,
  );
  breaks(
    "lib/stage/nat/napt44.ts",
    'export * from "../firewall/mod.ts";',
    `warren/floors: lib/stage/nat/ imports lib/stage/firewall/mod.ts: ${lib}`,
  );
  breaks(
    "runtime/engine/relay.ts",
    'import type { WorkerLink } from "../ring/link.ts"; export type A = WorkerLink;',
    "warren/floors: runtime/engine/ imports runtime/ring/link.ts: inside runtime/, engine, transport < dns, ring, vpn" +
      " < tunnel < workers < script < cli",
  );
  breaks(
    "lib/misc_folder/a.ts",
    'import "../core/mod.ts";',
    "warren/floors: lib/misc_folder/ has no place in the order of tests/gate/layers.ts",
  );
});

Deno.test("what starts with _ is imported from its own folder alone", () => {
  isClean("lib/wire/udp.ts", 'import "./_encode.ts";');
  isClean("tests/lib/wire/udp_test.ts", 'import "../../../lib/wire/_encode.ts";');
  for (const form of ['import "../wire/_encode.ts";', 'export type A = import("../wire/_encode.ts").A;']) {
    breaks(
      "lib/split/copy.ts",
      form,
      "warren/floors: lib/wire/_encode.ts is private to lib/wire/: move it, or what needs it",
    );
  }
  breaks(
    "runtime/dns/udp.ts",
    'import "../../lib/stage/dns/_cache.ts";',
    "warren/floors: lib/stage/dns/_cache.ts is private to lib/stage/dns/: move it, or what needs it",
  );
});

Deno.test("a script imports by name; what is in the package does not", () => {
  isClean("scripts/a.ts", 'import { a } from "@warren/tunnel/nat"; import b from "node:dgram"; a(b);');
  breaks(
    "scripts/a.ts",
    'import "../runtime/mod.ts";',
    'warren/floors: A script imports by name ("@warren/tunnel/..."), as a stranger\'s does',
  );
  breaks(
    "lib/nat.ts",
    'import "@warren/tunnel/ip";',
    "warren/floors: lib/ imports the package that it is a part of: write the file's own path",
  );
});

Deno.test("packages are named in deno.json, never written out in code", () => {
  for (const specifier of ["jsr:@std/cli", "npm:uplot", "https://example.com/a.ts"]) {
    breaks(
      "tests/a_test.ts",
      `import "${specifier}";`,
      `warren/floors: "${specifier}" is written out: name it in the imports of deno.json, as an npm package`,
    );
  }
});

Deno.test("lib/ uses the language alone", () => {
  isClean(
    "lib/a.ts",
    "// Deno, Date\nexport const a = { Date: 1, fetch: 2 }.Date; interface B { fetch(): void }",
  );
  isClean("runtime/a.ts", "setTimeout(() => Deno.exit(Date.now()));");
  breaks("lib/a.ts", "export const a = Deno.build;", "warren/pure: lib/ is pure: it cannot use Deno");
  breaks("lib/a.ts", "const { errors } = Deno; errors;", "warren/pure: lib/ is pure: it cannot use Deno");
  breaks("lib/a.ts", "export const a = [Date];", "warren/pure: lib/ is pure: it cannot use Date");
  breaks("lib/a.ts", 'import "node:net";', 'warren/floors: lib/ is pure: it cannot use "node:net"');
});

Deno.test("only a library's own file opens it, and on first use", () => {
  const open = 'Deno.dlopen("libc.so.6", {})';
  isClean("driver/linux/libc.ts", `export const a = () => ${open};`);
  isClean("tests/bench/measure.ts", `export const a = ${open};`);
  const message = "A native library has one file, listed in tests/gate/layers.ts; nothing else calls dlopen";
  breaks("driver/linux/device.ts", `export const a = () => ${open};`, `warren/library: ${message}`);
  breaks("runtime/a.ts", "const { dlopen: a } = Deno; a;", `warren/library: ${message}`);
  breaks(
    "driver/linux/libc.ts",
    `export const a = ${open};`,
    "warren/library: A library is opened on first use, not when its file is imported",
  );
});

Deno.test("a file starts with a doc comment, behind a script's first line", () => {
  deepStrictEqual(findings("scripts/a.ts", `#!/usr/bin/env -S deno run\n${DOC}`), []);
  deepStrictEqual(findings("lib/a.ts", "export const a = 1;"), [
    "warren/file: A file's first line is a doc comment that says what it is for",
  ]);
});

Deno.test("a file's name says what is in it, in snake_case", () => {
  isClean("lib/route_table.ts", "");
  breaks("lib/utils.ts", "", 'warren/file: "utils.ts" says nothing about what is in the file');
  breaks(
    "tests/lib/helpers_test.ts",
    "",
    'warren/file: "helpers_test.ts" says nothing about what is in the file',
  );
  breaks("lib/routeTable.ts", "", 'warren/file: "routeTable.ts" is not in snake_case');
});

Deno.test("a script has at most 40 lines", () => {
  isClean("scripts/a.ts", "export {};\n".repeat(39));
  breaks(
    "scripts/a.ts",
    "export {};\n".repeat(40),
    "warren/file: A script has at most 40 lines; this one has 41",
  );
});
