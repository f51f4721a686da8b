/** Command lines of scripts. */

import assert from "node:assert/strict";
import { MemoryDevice } from "../../../driver/memory.ts";
import { UsageError } from "../../../runtime/script/failure.ts";
import { checkOwnFlags, parseScriptFlags, usage } from "../../../runtime/script/flags.ts";
import type { ScriptFlags } from "../../../runtime/script/script_flags.ts";
import type { TunnelOptions } from "../../../runtime/mod.ts";

function one(args: string[], declared: TunnelOptions = {}): TunnelOptions {
  return parseScriptFlags(args, { "": declared }).tunnels[""]!.given;
}

function refused(
  args: string[],
  message: RegExp,
  declared: Record<string, TunnelOptions> = { "": {} },
): void {
  assert.throws(() => parseScriptFlags(args, declared), (error) => {
    assert.ok(error instanceof UsageError, String(error));
    assert.match(error.message, message);
    assert.ok(!error.message.includes("\n"));
    return true;
  });
}

const GIVEN: [args: string[], options: TunnelOptions][] = [
  [["--name", "home%d"], { name: "home%d" }],
  [["--address", "10.9.0.1/24"], { address: ["10.9.0.1/24"] }],
  [["--address=10.9.0.1/24", "--address", "fd00::1/64"], { address: ["10.9.0.1/24", "fd00::1/64"] }],
  [["--route", "10.0.0.0/8 via 10.9.0.2 metric 5"], { route: ["10.0.0.0/8 via 10.9.0.2 metric 5"] }],
  [["--route", "10.0.0.0/8", "--route", "default"], { route: ["10.0.0.0/8", "default"] }],
  [["--mtu", "1400"], { mtu: 1400 }],
  [["--queue-length=20"], { linux: { txQueueLength: 20 } }],
  ...(Deno.build.os === "linux"
    ? [[["--workers", "2"], { linux: { queues: 2 } }] satisfies [string[], TunnelOptions]]
    : []),
  [["--far", "udp://192.0.2.1:4500"], { far: "udp://192.0.2.1:4500" }],
  [["--watchdog", "0"], { watchdog: 0 }],
  [["--busy-poll", "50"], { busyPoll: 50 }],
];

for (const [args, options] of GIVEN) {
  Deno.test(`parseScriptFlags() takes ${args.join(" ")}`, () => assert.deepEqual(one(args), options));
}

Deno.test("parseScriptFlags() replaces options of the script by flags, and keeps the rest", () => {
  const declared = {
    address: ["10.9.0.1/24", "fd00::1/64"],
    mtu: 1400,
    linux: { txQueueLength: 9 },
    watchdog: 1,
  };
  assert.deepEqual(one(["--address", "10.7.0.1/24", "--queue-length", "20"], declared), {
    ...declared,
    address: ["10.7.0.1/24"],
    linux: { txQueueLength: 20 },
  });
  assert.deepEqual(one([], declared), declared);
});

Deno.test("parseScriptFlags() takes --help, --quiet and --dry-run, and their letters", () => {
  const { help, quiet, dryRun } = parseScriptFlags(["-h", "-q", "--dry-run"], { "": {} });
  assert.deepEqual([help, quiet, dryRun], [true, true, true]);
  const none = parseScriptFlags([], { "": {} });
  assert.deepEqual([none.help, none.quiet, none.dryRun], [false, false, false]);
});

Deno.test("parseScriptFlags() takes --profile with and without a file, and no file behind a space", () => {
  const profile = (...args: string[]) => parseScriptFlags(args, { "": {} }).profile;
  assert.equal(profile("--mtu", "1400"), undefined);
  assert.equal(profile("--profile", "--mtu", "1400"), "");
  assert.equal(profile("-q", "--profile=a=b.cpuprofile"), "a=b.cpuprofile");
});

Deno.test("parseScriptFlags() takes --capture with a file, once", () => {
  assert.equal(parseScriptFlags(["--capture", "-"], { "": {} }).capture, "-");
  assert.equal(parseScriptFlags(["--capture=a.pcapng"], { "": {} }).capture, "a.pcapng");
  assert.equal(parseScriptFlags([], { "": {} }).capture, undefined);
});

const REFUSED: [args: string[], message: RegExp][] = [
  [["--capture"], /^--capture needs a value$/],
  [["--filter", "tcp"], /^--filter needs --capture$/],
  [["--capture", "a", "--filter", "tcp prt 80"], /^--filter: Cannot .* column \d+/],
  [["--capture", "a", "--capture", "b"], /^--capture is given twice$/],
  [["--mtu", "fast"], /^--mtu: the value must be an integer, got "fast"$/],
  [["--mtu=-5"], /^--mtu: the value must be an integer, got "-5"$/],
  [["--mtu", "-5"], /^-5 is not a flag of this script: to pass it as the value of --mtu, write --mtu=-5$/],
  [["--name", ""], /^--name needs a value$/],
  [["--quiet", "-5"], /^-5 is not a flag of this script$/],
  [["--mtu", "67"], /^--mtu: Cannot open a device: mtu must be an integer from 68 to 65535, got 67$/],
  [["--mtu", "70000"], /^--mtu: Cannot open a device: mtu must be an integer from 68 to 65535, got 70000$/],
  [["--mtu"], /^--mtu needs a value$/],
  [["--name="], /^--name needs a value$/],
  [["--mtu", "1400", "--mtu", "1500"], /^--mtu is given twice$/],
  [
    ["--name", "x".repeat(128)],
    /^--name: .*name must have at most (15 bytes|127 UTF-16 code units), got 128$/,
  ],
  [["--name", "a/b"], /^--name: /],
  [["--address", "10.9.0.1"], /^--address: .*write 10\.9\.0\.1\/24$/],
  [["--address", "10.9.0.256/24"], /^--address: /],
  [["--route", "10.0.0.0/8 over 10.9.0.2"], /^--route: .*"over" must be via, metric or table$/],
  [["--far", "carrier-pigeon"], /^--far: Cannot parse far end "carrier-pigeon"/],
  [["--watchdog", "1.5"], /^--watchdog: the value must be an integer, got "1\.5"$/],
  [
    ["--busy-poll", "1000001"],
    /^--busy-poll: Cannot open a tunnel: busyPoll must be an integer from 0 to 1000000, got 1000001$/,
  ],
  [["--queue-length", "0"], /^--queue-length: /],
  [
    ["--workers", "0"],
    /^--workers: Cannot open a device: linux\.queues must be an integer from 1 to 256, got 0$/,
  ],
  [
    ["--workers", "257"],
    /^--workers: Cannot open a device: linux\.queues must be an integer from 1 to 256, got 257$/,
  ],
  [["--workers", "two"], /^--workers: the value must be an integer, got "two"$/],
  [["--workers"], /^--workers needs a value$/],
  [["--workers", "2", "--workers", "2"], /^--workers is given twice$/],
  [["--worker", "2"], /did you mean --workers\?$/],
  [["--mtuu", "1400"], /^--mtuu is not a flag of this script: did you mean --mtu\?$/],
  [["--adress=10.9.0.1/24"], /did you mean --address\?$/],
  [["--dryrun"], /did you mean --dry-run\?$/],
  [["--profle"], /did you mean --profile\?$/],
  [["--cpu-prof"], /did you mean --profile\?$/],
  [["--profile="], /^--profile= needs a file name$/],
  [["--profile", "--profile=a"], /^--profile is given twice$/],
  [["--profile", "a.cpuprofile"], /^"a\.cpuprofile" is not expected here: .* --profile=a\.cpuprofile$/],
  [["--xyzzy"], /^--xyzzy is not a flag of this script$/],
  [["-x"], /^-x is not a flag of this script$/],
  [["--no-quiet"], /^--no-quiet is not a flag of this script/],
  [["--__proto__.mtu", "9"], /is not a flag of this script/],
  [["my.ts"], /^"my\.ts" is not expected here/],
  [["--dry-run=no"], /^--dry-run=no has a value: --dry-run takes none$/],
  [["--help=false"], /^--help=false has a value/],
  [["--no-offload=1"], /^--no-offload=1 has a value: --no-offload takes none$/],
  [["-q=no"], /^-q=no has a value: -q takes none$/],
  [["-h5"], /^-h5 has a value: -h takes none$/],
  [["-qh="], /^-qh= has a value: -qh takes none$/],
  [["--offload"], /^--offload is not a flag of this script: did you mean --no-offload\?$/],
  [
    ["--linux.offload=false"],
    /^--linux\.offload=false is not a flag of this script: did you mean --no-offload\?$/,
  ],
  [["--uring=yes"], /did you mean --no-uring\?$/],
];

for (const [args, message] of REFUSED) {
  Deno.test(`parseScriptFlags() refuses ${args.join(" ")}`, () => refused(args, message));
}

Deno.test("parseScriptFlags() rejects a flag that contradicts the script's options", () => {
  const [device] = MemoryDevice.pair({ name: "mine" });
  refused(["--mtu", "1000"], /^--mtu: .*IPv6/, { "": { address: "fd00::1/64" } });
  refused(["--mtu", "1000"], /^--mtu has no effect: .*"mine"/, { "": { device } });
  assert.equal(one(["--far", "tun:b"], { device }).far, "tun:b");
});

Deno.test("parseScriptFlags() blames the script, not the command line, for the script's options", () => {
  assert.throws(
    () => one(["--mtu", "1400"], { address: "10.9.0.1" }),
    (error) => !(error instanceof UsageError),
  );
});

Deno.test("parseScriptFlags() gives each of several tunnels its own flags", () => {
  const declared = { left: { mtu: 1300 }, right: {} };
  const args = ["--left.mtu", "1400", "--right.address", "10.8.0.1/24", "--right.name", "b"];
  const { left, right } = parseScriptFlags(args, declared).tunnels;
  assert.deepEqual({ left: left!.given, right: right!.given }, {
    left: { mtu: 1400 },
    right: { address: ["10.8.0.1/24"], name: "b" },
  });
  refused(["--mtu", "1400"], /^--mtu is not a flag of this script: did you mean --left\.mtu\?$/, declared);
  refused(["--lefd.mtu", "1400"], /did you mean --left\.mtu\?$/, declared);
  refused(["--left.mtu", "x"], /^--left\.mtu: .* got "x"/, declared);
});

Deno.test("usage() names every flag that parseScriptFlags() takes, and each tunnel", () => {
  const text = usage("deno run my.ts", [""]);
  for (const [[flag]] of GIVEN) assert.ok(text.includes(`  ${flag!.split("=")[0]} `), flag);
  for (const flag of ["--help", "--quiet", "--dry-run", "--profile[=FILE]"]) {
    assert.ok(text.includes(flag), flag);
  }
  assert.match(text, /^Usage: deno run my\.ts \[flags\]/);
  assert.match(usage("x", ["left", "right"]), /left, right.*--left\.mtu/);
});

const OWN = {
  key: { type: "string", required: true, value: "FILE", description: "the shared key's file" },
  maxPeers: { type: "number", default: 4, description: "more are refused" },
  ratio: { type: "number" },
  mode: { type: "string", default: "fast" },
  allow: { type: "list" },
  block: { type: "list", default: ["a", "b"] },
  verbose: { type: "boolean" },
} as const satisfies ScriptFlags;

Deno.test("parseScriptFlags() gives a script its own flags by type, with defaults, and the words behind --", () => {
  const given = (...args: string[]) => parseScriptFlags(args, { "": {} }, OWN).given;
  assert.deepEqual(given("--key", "k"), {
    flags: {
      key: "k",
      maxPeers: 4,
      ratio: undefined,
      mode: "fast",
      allow: [],
      block: ["a", "b"],
      verbose: false,
    },
    args: [],
  });
  const args = [
    "--key=k",
    "--max-peers",
    "12",
    "--ratio=-0.5",
    "--mode",
    "slow",
    "--allow",
    "x",
    "--allow=y",
  ];
  assert.deepEqual(given(...args, "--block", "c", "--verbose", "--", "--mtu", "9", "--", "a b", ""), {
    flags: {
      key: "k",
      maxPeers: 12,
      ratio: -0.5,
      mode: "slow",
      allow: ["x", "y"],
      block: ["c"],
      verbose: true,
    },
    args: ["--mtu", "9", "--", "a b", ""],
  });
  const both = parseScriptFlags(["--key", "k", "--left.mtu", "1400", "--mtu-like", "5"], {
    left: {},
    right: {},
  }, {
    ...OWN,
    mtuLike: { type: "string" },
  });
  const { left, right } = both.tunnels;
  assert.deepEqual([left!.given, right!.given], [{ mtu: 1400 }, {}]);
  assert.equal(both.given.flags["mtuLike"], "5");
});

Deno.test("parseScriptFlags() rejects invalid values of a script's own flags", () => {
  const own: [args: string[], message: RegExp][] = [
    [[], /^--key is missing: the shared key's file$/],
    [["--key="], /^--key needs a value$/],
    [["--key", "a", "--key", "b"], /^--key is given twice$/],
    [["--key", "k", "--max-peers", "many"], /^--max-peers: the value must be a number, got "many"$/],
    [["--key", "k", "--max-peers", "Infinity"], /must be a number, got "Infinity"$/],
    [["--key", "k", "--verbose=yes"], /^--verbose=yes has a value: --verbose takes none$/],
    [["--key", "k", "--verbose", "true"], /^"true" is not expected here/],
    [
      ["--key", "k", "--maxPeers", "4"],
      /^--maxPeers is not a flag of this script: did you mean --max-peers\?$/,
    ],
    [["--kee", "k"], /^--kee is not a flag of this script: did you mean --key\?$/],
  ];
  for (const [args, message] of own) {
    assert.throws(() => parseScriptFlags(args, { "": {} }, OWN), (error) => {
      assert.ok(error instanceof UsageError);
      assert.match(error.message, message);
      return true;
    });
  }
  assert.ok(parseScriptFlags(["--help"], { "": {} }, OWN).help);
});

Deno.test("checkOwnFlags() rejects reserved names and invalid declarations", () => {
  const declare = (flags: unknown, tunnels: string[] = []) => () =>
    checkOwnFlags(flags as ScriptFlags, tunnels);
  for (
    const name of [
      "mtu",
      "help",
      "quiet",
      "dryRun",
      "noOffload",
      "queueLength",
      "profile",
      "workers",
      "capture",
    ]
  ) {
    assert.throws(declare({ [name]: { type: "string" } }), {
      name: "TypeError",
      message: /is a flag of every script: choose another name$/,
    });
  }
  assert.throws(declare({ home: { type: "string" } }, ["home"]), { name: "TypeError" });
  const wrong: [flag: unknown, message: RegExp][] = [
    [undefined, /type must be "string", "number", "boolean" or "list", got undefined$/],
    [{ type: "text" }, /type must be "string", "number", "boolean" or "list", got "text"$/],
    [{ type: "string", defualt: "x" }, /there is no option "defualt"/],
    [{ type: "boolean", default: true }, /there is no option "default"/],
    [{ type: "number", default: "4" }, /default must be of type number, got "4"$/],
    [{ type: "list", default: [4] }, /default must be of type list, got an array$/],
    [{ type: "string", default: "x", required: true }, /a required flag must have no default$/],
  ];
  for (const [flag, message] of wrong) assert.throws(declare({ some: flag }), { name: "TypeError", message });
  for (const name of ["a", "max-peers", "Max", "__proto__x", "5x", "a.b", ""]) {
    assert.throws(declare({ [name]: { type: "string" } }), {
      name: "TypeError",
      message: /its name must be/,
    });
  }
  declare(OWN, ["home"])();
  assert.throws(declare({ constructor: { type: "string" } }), {
    message: /every object has a property of this name/,
  });
});

Deno.test("usage() explains a script's own flags before every script's", () => {
  const text = usage("x", [""], OWN);
  assert.match(text, /^Flags of this script:\n {2}--key FILE +the shared key's file \(required\)$/m);
  assert.match(text, /^ {2}--max-peers N +more are refused \(default: 4\)$/m);
  assert.match(text, /^ {2}--allow TEXT +\(repeatable\)$/m);
  assert.match(text, /^ {2}--verbose$/m);
  assert.match(text, /^Flags of every script:\n {2}--name/m);
  assert.doesNotMatch(usage("x", [""]), /Flags of/);
});
