/** The `warren` command, as a user starts it. */

import assert from "node:assert/strict";
import type { Profiler } from "node:inspector";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import config from "../../deno.json" with { type: "json" };
import { type CommandResult, type Namespace, openNamespace, systemTest } from "../kit/system.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const WARREN = ["run", "-A", join(ROOT, "runtime/cli/main.ts")];
/** Without colours, and without the user's own. */
const PLAIN = { NO_COLOR: "1" };

/** Runs the command in a folder. */
async function warren(args: string[], cwd = ROOT): Promise<CommandResult> {
  return await deno([...WARREN, ...args], cwd);
}

async function deno(args: string[], cwd: string): Promise<CommandResult> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd,
    env: PLAIN,
    stdin: "null",
  })
    .output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** A folder of a test, removed after it. */
class Folder implements AsyncDisposable {
  readonly path = Deno.makeTempDirSync({ prefix: "warren-" });

  async write(name: string, text: string): Promise<string> {
    const path = join(this.path, name);
    await Deno.mkdir(dirname(path), { recursive: true });
    await Deno.writeTextFile(path, text);
    return path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

/** The script of README.md's first block. */
async function readmeScript(): Promise<string> {
  const readme = await Deno.readTextFile(join(ROOT, "README.md"));
  const text = /```ts\n(.*?)```/s.exec(readme)?.[1];
  assert.ok(text !== undefined, "README.md has no ts block");
  return text;
}

/** Starts a script in a namespace, pings through it, ends it by Ctrl-C; returns what it printed. */
async function pingThrough(
  namespace: Namespace,
  args: string[],
  folder: string,
  ping = ["-c", "3", "-i", "0.1", "-W", "2"],
): Promise<string> {
  const child = new Deno.Command("ip", {
    args: ["netns", "exec", namespace.name, Deno.execPath(), ...args],
    cwd: folder,
    env: PLAIN,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const lines = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
  let said = "";
  try {
    while (!said.includes(" is open: ")) {
      const { done, value } = await lines.read();
      assert.ok(!done, `it ended: ${said}`);
      said += value;
    }
    const { stdout } = await namespace.command("ping", [...ping, "10.9.0.77"]);
    assert.match(stdout, / 0% packet loss/);
  } finally {
    child.kill("SIGINT");
    for (let part = await lines.read(); !part.done; part = await lines.read()) said += part.value;
  }
  assert.equal((await child.status).code, 0, said);
  return said;
}

Deno.test("warren --help, and that of each command, prints the usage and ends with 0", async () => {
  const { code, stdout, stderr } = await warren(["--help"]);
  assert.equal(code, 0);
  assert.equal(stderr, "");
  for (const word of ["run", "new", "doctor", "help"]) {
    assert.match(stdout, new RegExp(`^  ${word}\\b`, "m"));
    const forms = word === "help" ? [["help"], ["-h"]] : [[word, "--help"], ["help", word]];
    for (const form of forms) {
      const help = await warren(form);
      assert.equal(help.code, 0, form.join(" "));
      assert.match(help.stdout, /^Usage: warren /);
    }
  }
  assert.match((await warren(["run", "--help"])).stdout, /--profile/);
  assert.match((await warren(["run", "scripts/relay.ts", "--help"])).stdout, /^ {2}--profile\[=FILE\] /m);
});

Deno.test("warren --version names Warren's version and Deno's", async () => {
  assert.equal((await warren(["--version"])).stdout, `warren ${config.version}, deno ${Deno.version.deno}\n`);
});

const WRONG: [args: string[], message: RegExp][] = [
  [[], /^warren: a command is missing: run, new, doctor, driver or help\nTry: warren --help\n$/],
  [["docter"], /^warren: "docter" is not a command: did you mean warren doctor\?\nTry: warren --help\n$/],
  [["my.ts"], /did you mean warren run my\.ts\?/],
  [["--verison"], /^warren: "--verison" is not a flag: did you mean warren --version\?/],
  [["constructor"], /^warren: "constructor" is not a command/],
  [["run"], /^warren: a script is missing: .*\nTry: warren run --help\n$/],
  [["run", "--mtu", "1400", "my.ts"], /^warren: the script must come before its flags/],
  [
    ["run", "scripts/icmp_echo.ts", "--mtuu"],
    /did you mean --mtu\?\nTry: warren run scripts\/icmp_echo\.ts --help/,
  ],
  [
    ["run", "scripts/icmp_echo.ts", "--mtu", "9"],
    /^warren: --mtu: .*mtu must be an integer from 68 to 65535, got 9$/m,
  ],
  [["run", "--profile"], /^warren: a script is missing: warren run --profile my\.ts\n/],
  [["run", "--profile=", "scripts/icmp_echo.ts"], /^warren: --profile= needs a file name/],
  [
    ["run", "--profile", "a.cpuprofile", "scripts/icmp_echo.ts"],
    /--profile=a\.cpuprofile\nTry: warren run --help/,
  ],
  [
    ["run", "scripts/icmp_echo.ts", "--profile", "a.cpuprofile"],
    /--profile=a\.cpuprofile\nTry: warren run s/,
  ],
  [["run", "--profile", "scripts/icmp_echo.ts", "--cpu-prof"], /did you mean --profile\?/],
  [["new"], /^warren: a name is missing/],
  [["new", "a", "b"], /^warren: "b" is not expected here/],
  [["new", "a b"], /^warren: NAME must consist of .* got "a b"/],
  [["new", "--hlep"], /did you mean --help\?/],
  [["doctor", "--repiar"], /did you mean --repair\?\nTry: warren doctor --help/],
  [["doctor", "a.ts", "b.ts"], /^warren: "b\.ts" is not expected here/],
];

Deno.test("warren ends with 2 and reports errors in its command line", async () => {
  await Promise.all(WRONG.map(async ([args, message]) => {
    const { code, stdout, stderr } = await warren(args);
    assert.equal(code, 2, `warren ${args.join(" ")}: ${stderr}`);
    assert.equal(stdout, "");
    assert.match(stderr, message);
    assert.equal(stderr.split("\n").length, 3);
  }));
});

const BROKEN: [name: string, text: string, message: RegExp][] = [
  ["syntax.ts", "let x = = 2;", /^warren: Cannot run "syntax\.ts": SyntaxError: .*syntax\.ts:1:9\n$/s],
  [
    "missing.ts",
    'import "./none.ts";',
    /^warren: Cannot run "missing\.ts": Module not found .*missing\.ts:1:8\n$/s,
  ],
  [
    "bare.ts",
    'import "lodash";',
    /^warren: Cannot run "bare\.ts": Import "lodash" .*with a deno\.json for the script\n$/s,
  ],
  [
    "plain.ts",
    "export default 1;",
    /^warren: Cannot run "plain\.ts": its default export must be a script: end it with /,
  ],
  ["none.ts", "", /^warren: Cannot run "none\.ts": its default export must be a script/],
  [
    "throws.ts",
    'throw new RangeError("at once");',
    /^warren: RangeError: at once\n {4}at .*throws\.ts:1:7\n$/,
  ],
];

Deno.test("warren run ends with 1 and one message when a script does not load", async () => {
  await using folder = new Folder();
  for (const [name, text, message] of BROKEN) {
    await folder.write(name, text);
    const { code, stderr } = await warren(["run", name], folder.path);
    assert.equal(code, 1, name);
    assert.match(stderr, message);
  }
  const absent = await warren(["run", "absent.ts"], folder.path);
  assert.match(absent.stderr, /^warren: Cannot run "absent\.ts": the file does not exist\n$/);
  const half = await warren(["run", "http://"]);
  assert.match(
    half.stderr,
    /^warren: Cannot run "http:\/\/": SCRIPT must be a file or a complete URL, .*\n$/,
  );
  const shorter = await warren(["run", "plain"], folder.path);
  assert.match(shorter.stderr, /did you mean plain\.ts\?/);
});

Deno.test("warren new makes a folder whose script runs, type-checks and starts as a task", async () => {
  await using folder = new Folder();
  const made = await warren(["new", "demo"], folder.path);
  assert.equal(made.code, 0, made.stderr);
  const there = join(folder.path, "demo");
  assert.deepEqual(Array.from(Deno.readDirSync(there), ({ name }) => name).sort(), ["demo.ts", "deno.json"]);
  const planned = "device tun%d, address 10.9.0.1/24\n";
  for (
    const args of [
      ["run", "--no-prompt", "--allow-ffi", "demo.ts", "--dry-run"],
      ["task", "start", "--dry-run"],
      [...WARREN, "run", "demo.ts", "--dry-run"],
    ]
  ) {
    const { code, stdout, stderr } = await deno(args, there);
    assert.equal(code, 0, stderr);
    assert.equal(stdout.replace(/^permissions --allow-ffi\n/, ""), planned);
  }
  const checked = await deno(["check", "demo.ts"], there);
  assert.equal(checked.code, 0, checked.stderr);
  const url = await warren(["run", new URL(`file://${there}/demo.ts`).href, "--dry-run"], "/");
  assert.equal(url.stdout, `permissions --allow-ffi\n${planned}`, url.stderr);
});

Deno.test("warren new overwrites nothing, and lists entries that an existing deno.json lacks", async () => {
  await using folder = new Folder();
  await folder.write("deno.json", "{}");
  await folder.write("taken/keep.txt", "kept");
  const made = await warren(["new", "my.ts"], folder.path);
  assert.equal(made.code, 0, made.stderr);
  assert.match(made.stdout, /^Add to .*deno\.json: .*"@warren\/tunnel":/m);
  assert.equal(await Deno.readTextFile(join(folder.path, "deno.json")), "{}");
  for (const name of ["my.ts", "taken"]) {
    const again = await warren(["new", name], folder.path);
    assert.equal(again.code, 1);
    assert.equal(again.stderr, `warren: Cannot create "${name}": it exists already: choose another name\n`);
  }
  assert.deepEqual(Array.from(Deno.readDirSync(join(folder.path, "taken")), ({ name }) => name), [
    "keep.txt",
  ]);
});

Deno.test("warren new creates a script that runs next to a package.json of another kind", async () => {
  await using folder = new Folder();
  await folder.write("package.json", '{ "name": "other", "type": "commonjs" }');
  await warren(["new", "my.ts"], folder.path);
  const args = ["run", "--no-prompt", "--allow-ffi", "my.ts", "--dry-run"];
  const { code, stderr } = await deno(args, folder.path);
  assert.equal(code, 0, stderr);
});

Deno.test("warren run finds @warren/tunnel for README.md's script in an empty folder", async () => {
  await using folder = new Folder();
  await folder.write("my.ts", await readmeScript());
  const { code, stdout, stderr } = await warren(
    ["run", "./my.ts", "--dry-run", "--mtu", "1400"],
    folder.path,
  );
  assert.equal(code, 0, stderr);
  assert.equal(stdout, "permissions --allow-ffi\ndevice tun%d, address 10.9.0.1/24, MTU 1400\n");
});

const PING = { programs: ["ip", "ping"] };

systemTest("warren run answers pings by README.md's script, in an empty folder", PING, async () => {
  await using folder = new Folder();
  await using namespace = await openNamespace();
  await folder.write("my.ts", await readmeScript());
  const said = await pingThrough(namespace, [...WARREN, "run", "my.ts"], folder.path);
  assert.match(
    said,
    /^tun0 is open: 10\.9\.0\.1\/24, MTU 1500\. Press Ctrl-C to stop\.\nThe script receives packets to 10\.9\.0\.0\/24\./,
  );
  assert.match(
    said,
    /\ntun0 is closed: from this machine \d+ packets .*; to this machine 3 packets \(252 bytes\); dropped/,
  );
});

systemTest(
  "warren new's deno.json lets README.md's script answer pings by deno run --allow-ffi",
  PING,
  async () => {
    await using folder = new Folder();
    await using namespace = await openNamespace();
    await warren(["new", "my.ts"], folder.path);
    await folder.write("my.ts", await readmeScript());
    const args = ["run", "--no-prompt", "--allow-ffi", "my.ts", "--name", "home"];
    assert.match(await pingThrough(namespace, args, folder.path), /^home is open: /);
  },
);

/** What there is in a profile: by name, how many samples, and the lines of the source that it is said to start at. */
async function readProfile(path: string): Promise<Map<string, { samples: number; lines: string[] }>> {
  const { nodes, samples, timeDeltas }: Profiler.Profile = JSON.parse(await Deno.readTextFile(path));
  assert.ok(samples!.length > 0);
  assert.equal(samples!.length, timeDeltas!.length);
  const found = new Map<string, { samples: number; lines: string[] }>();
  for (const { callFrame: { functionName, url, lineNumber }, hitCount } of nodes) {
    const entry = found.getOrInsert(functionName, { samples: 0, lines: [] });
    entry.samples += hitCount!;
    if (!url.startsWith("file:") || lineNumber < 0) continue;
    const text = await Deno.readTextFile(new URL(url));
    entry.lines.push(text.split("\n")[lineNumber] ?? "");
  }
  return found;
}

systemTest(
  "warren run --profile shows the loop's functions, at their lines, and its system calls",
  PING,
  async () => {
    await using folder = new Folder();
    await using namespace = await openNamespace();
    // 20 us a packet, so that it is seen.
    const slow =
      "function replyToPing(packet) { for (const end = performance.now() + 0.02; performance.now() < end;);";
    await folder.write("my.ts", (await readmeScript()).replace("(packet) => {", slow));
    const args = [...WARREN, "run", "--profile", "my.ts"];
    const said = await pingThrough(namespace, args, folder.path, ["-q", "-f", "-c", "20000"]);
    const names = Array.from(Deno.readDirSync(folder.path), ({ name }) => name);
    const name = names.find((name) => /^my-\d{8}-\d{6}\.cpuprofile$/.test(name));
    assert.ok(name !== undefined, names.join(" "));
    assert.match(
      said,
      /^CPU profile of \d+\.\d s: .*\. Open it in Chrome DevTools: Performance, Load profile\n$/m,
    );
    assert.ok(said.includes(join(folder.path, name)));

    const profile = await readProfile(join(folder.path, name));
    const expected = [
      "#run",
      "#burst",
      "#move",
      "inhale",
      "exhale",
      "#readLong",
      "#writeOne",
      "wait",
      "replyToPing",
    ];
    for (const name of expected) {
      const found = profile.get(name);
      assert.ok(found !== undefined, `${name} is not in the profile`);
      for (const line of found.lines) assert.ok(line.includes(`${name}(`), `${name} is not in: ${line}`);
    }
    for (const name of ["#readLong", "#writeOne", "wait"]) {
      const calls = profile.get(`(native call of ${name})`);
      assert.ok(calls !== undefined && calls.samples > 0, `${name} made no system call`);
    }
  },
);

/** A script on a device in memory; its body comes when the tunnel runs. */
function memoryScript(body: string): string {
  return `import { script } from "@warren/tunnel";
import { MemoryDevice } from "@warren/tunnel/memory";
interface Unseen { readonly a: number; }
const [device] = MemoryDevice.pair();
export default script(import.meta, { device }, async (tunnel) => {
  const running = tunnel.run();
  setTimeout(function busy() {
    for (const end = performance.now() + 50; performance.now() < end;);
    ${body}
  });
  await running;
});`;
}

const ENDINGS: [how: string, body: string, code: number][] = [
  ["its tunnel closes", "tunnel.close();", 0],
  ["SIGTERM comes", 'Deno.kill(Deno.pid, "SIGTERM");', 0],
  ["Ctrl-C comes", 'Deno.kill(Deno.pid, "SIGINT");', 0],
  ["it calls Deno.exit()", "Deno.exit(7);", 7],
  ["it throws outside of its tunnel", 'throw new Error("lost");', 1],
  ["it loses a rejection", 'Promise.reject(new Error("lost"));', 1],
];

Deno.test("warren run --profile writes the profile however the script ends", async () => {
  await Promise.all(ENDINGS.map(async ([how, body, expected]) => {
    await using folder = new Folder();
    await folder.write("my.ts", memoryScript(body));
    const { code, stderr } = await warren(["run", "my.ts", "--profile=a.cpuprofile"], folder.path);
    assert.equal(code, expected, `${how}: ${stderr}`);
    assert.ok(stderr.includes(join(folder.path, "a.cpuprofile")), `${how}: ${stderr}`);
    const profile = await readProfile(join(folder.path, "a.cpuprofile"));
    assert.match(profile.get("busy")!.lines[0]!, /function busy/, how);
  }));
});

Deno.test("--workers is refused to a script that no module exports, before a device is opened", {
  ignore: Deno.build.os !== "linux",
}, async () => {
  await using folder = new Folder();
  const hidden = (await readmeScript()).replace("export default ", "");
  assert.ok(!hidden.includes("export"));
  await folder.write("my.ts", hidden);
  const settings = ["--no-prompt", "--config", join(ROOT, "deno.json")];
  const file = await deno(["run", ...settings, "my.ts", "--workers", "2"], folder.path);
  assert.equal(file.code, 1);
  assert.equal(
    file.stderr,
    "warren: Cannot run 2 workers: the default export of my.ts must be a script\n",
  );
  const typed = await deno(
    ["eval", "--config", join(ROOT, "deno.json"), hidden, "--workers", "2"],
    folder.path,
  );
  assert.equal(typed.code, 1);
  assert.equal(
    typed.stderr,
    "warren: Cannot run 2 workers: the script must be a file, which each worker loads\n",
  );
});

Deno.test("A dry run rejects paths to which a profile cannot be written, and leaves no file", async () => {
  await using folder = new Folder();
  await folder.write("my.ts", await readmeScript());
  const run = async (path: string) =>
    await warren(["run", "my.ts", "--dry-run", `--profile=${path}`], folder.path);
  const { code, stderr } = await run(folder.path);
  assert.equal(code, 1);
  assert.match(stderr, /^warren: Cannot write profile ".*": .*\n$/);
  assert.equal((await run("a.cpuprofile")).code, 0);
  assert.deepEqual(Array.from(Deno.readDirSync(folder.path), ({ name }) => name), ["my.ts"]);
});

Deno.test("warren run --profile leaves no file when the script does not load", async () => {
  await using folder = new Folder();
  const { code, stderr } = await warren(["run", "--profile", "absent.ts"], folder.path);
  assert.equal(code, 1);
  assert.match(stderr, /^warren: Cannot run "absent\.ts": the file does not exist\n$/);
  assert.deepEqual(Array.from(Deno.readDirSync(folder.path)), []);
});

Deno.test("A script's --profile ends with 1 and the flags of deno that it lacks, before the tunnel opens", async () => {
  await using folder = new Folder();
  await folder.write("my.ts", memoryScript("tunnel.close();"));
  const settings = ["--config", join(ROOT, "deno.json")];
  for (const granted of [["--allow-write"], ["--allow-sys"], []]) {
    const args = ["run", "--no-prompt", ...settings, ...granted, "my.ts", "--profile=a.cpuprofile"];
    const { code, stderr } = await deno(args, folder.path);
    assert.equal(code, 1);
    assert.equal(
      stderr,
      'warren: Cannot write profile "a.cpuprofile": deno has no permission: run it with --allow-sys and --allow-write\n',
    );
  }
  const args = [
    "run",
    "--no-prompt",
    ...settings,
    "--allow-sys",
    "--allow-write",
    "my.ts",
    "--profile",
    "-q",
  ];
  const { code, stderr } = await deno(args, folder.path);
  assert.equal(code, 0, stderr);
  assert.equal(stderr, "");
  const names = Array.from(Deno.readDirSync(folder.path), ({ name }) => name).sort();
  assert.match(names.join(" "), /^my-\d{8}-\d{6}\.cpuprofile my\.ts$/);
});

systemTest("warren run --profile ends with 1 where the system refuses the file", {}, async () => {
  const path = "/sys/a.cpuprofile";
  const { code, stderr } = await warren(["run", "-A", `--profile=${path}`, "scripts/icmp_echo.ts"]);
  assert.equal(code, 1);
  assert.equal(
    stderr,
    `warren: Cannot write profile "${path}": permission denied: choose another name with --profile=FILE\n`,
  );
});

systemTest("warren run ends with 1 and the script's own place when a handler throws", PING, async () => {
  await using folder = new Folder();
  await using namespace = await openNamespace();
  const path = await folder.write(
    "throws.ts",
    `import { script } from "@warren/tunnel";
export default script(import.meta, { address: "10.9.0.1/24" }, (tunnel) => {
  const end = tunnel.run(function reader() { throw new Error("not today"); });
  tunnel.send(Uint8Array.of(0x45));
  return end;
});`,
  );
  const { code, stderr } = await namespace.command(Deno.execPath(), [...WARREN, "run", path, "-q"], {
    check: false,
    env: PLAIN,
  });
  assert.equal(code, 1);
  const [said, place, ...rest] = stderr.trimEnd().split("\n");
  assert.equal(said, 'warren: Cannot go on with "tun0": stage "reader" threw: not today');
  assert.match(place!, new RegExp(`at .*${basename(path)}:3:`));
  assert.deepEqual(rest, []);
});

systemTest(
  "warren run ends with 1 and the remedy when the device cannot be had",
  { programs: ["ip"] },
  async () => {
    await using namespace = await openNamespace();
    const args = [...WARREN, "run", join(ROOT, "scripts/icmp_echo.ts"), "--name", "lo"];
    const { code, stderr } = await namespace.command(Deno.execPath(), args, { check: false, env: PLAIN });
    assert.equal(code, 1);
    assert.match(stderr, /^warren: Cannot open device "lo": EINVAL \(22\): .*not a TUN device\n$/);
  },
);

interface Check {
  name: string;
  state: string;
  text: string;
  remedy?: string;
}

systemTest("warren doctor finds nothing wrong here, in lines and as JSON", { programs: ["ip"] }, async () => {
  await using folder = new Folder();
  await using namespace = await openNamespace();
  await folder.write("my.ts", "");
  const my = join(folder.path, "my.ts");
  const lines = await namespace.command(Deno.execPath(), [...WARREN, "doctor", my], {
    check: false,
    env: PLAIN,
  });
  assert.equal(lines.code, 0, lines.stdout);
  for (const line of lines.stdout.trimEnd().split("\n")) assert.match(line, /^(ok {2}|warn) {2}[^:]+: ./);
  const json = await namespace.command(Deno.execPath(), [...WARREN, "doctor", my, "--json"], { env: PLAIN });
  const checks: Check[] = JSON.parse(json.stdout);
  const seen = new Map(checks.map(({ name, state }) => [name, state]));
  for (
    const name of ["Deno", "--allow-ffi", "system", "C library", "/dev/net/tun", "privileges", "leftovers"]
  ) {
    assert.equal(seen.get(name), "ok", name);
  }
});

systemTest(
  "warren doctor warns of a persistent device that no process has open",
  { programs: ["ip"] },
  async () => {
    await using namespace = await openNamespace();
    await namespace.command("ip", ["tuntap", "add", "keep0", "mode", "tun"]);
    const { stdout } = await namespace.command(Deno.execPath(), [...WARREN, "doctor"], { env: PLAIN });
    assert.match(stdout, /^warn {2}persistent devices: keep0 exists, .*`ip tuntap del keep0 mode tun`/m);
  },
);

systemTest("warren doctor --repair undoes changes that a killed script left behind", PING, async () => {
  await using folder = new Folder();
  await using namespace = await openNamespace();
  const path = await folder.write(
    "rule.ts",
    `import { script } from "@warren/tunnel";
const rule = { table: 51820, from: "10.9.0.0/24", priority: 4321 };
export default script(import.meta, { address: "10.9.0.1/24", rule }, () => Deno.kill(Deno.pid, "SIGKILL"));`,
  );
  const rules = async () => (await namespace.command("ip", ["rule", "show"])).stdout;
  const doctor = (...flags: string[]) =>
    namespace.command(Deno.execPath(), [...WARREN, "doctor", ...flags], { check: false, env: PLAIN });
  await namespace.command(Deno.execPath(), [...WARREN, "run", path], { check: false });
  assert.match(await rules(), /^4321:/m);

  const found = await doctor();
  assert.equal(found.code, 1);
  assert.match(
    found.stdout,
    /^fail {2}leftovers: process \d+ with device tun0: .*4321.*: warren doctor --repair$/m,
  );
  assert.match(await rules(), /^4321:/m);

  const repaired = await doctor("--repair");
  assert.equal(repaired.code, 0, repaired.stdout);
  assert.match(repaired.stdout, /^ok {4}leftovers: repaired: process \d+ with device tun0: .*4321/m);
  assert.doesNotMatch(await rules(), /^4321:/m);
  assert.match((await doctor()).stdout, /^ok {4}leftovers: no crash left anything behind$/m);
});

Deno.test("warren doctor ends with 1 for a script that does not exist", async () => {
  const { code, stderr } = await warren(["doctor", "nosuch.ts"], Deno.cwd());
  assert.equal(code, 1);
  assert.equal(
    stderr,
    'warren: Cannot check "nosuch.ts": the file does not exist: give the name of a script, or nothing\n',
  );
});

Deno.test("warren doctor ends with 1 and names the remedy without --allow-ffi, and never throws", async () => {
  const args = ["run", "--no-prompt", join(ROOT, "runtime/cli/main.ts"), "doctor"];
  const { code, stdout, stderr } = await deno(args, ROOT);
  assert.equal(code, 1);
  assert.equal(stderr, "");
  assert.match(
    stdout,
    /^fail {2}--allow-ffi: not granted: run deno with --allow-ffi, not --allow-ffi=PATH$/m,
  );
});
