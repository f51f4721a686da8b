/** The journal against real crashes, real files and forged ones, in network namespaces of its own. */

import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { type Namespace, openNamespace, runModule, systemTest } from "../kit/system.ts";

const SCENARIOS = new URL("./journal_scenarios.ts", import.meta.url);
const NEEDS = { programs: ["ip", "unshare", "mount", "setpriv"] };
const FOLDER = "/run/warren";
const NOBODY = 65534;

interface Summary {
  found: string[][];
  refused: string[];
}

function run<Result>(namespace: Namespace, scenario: string): Promise<Result> {
  return runModule<Result>(namespace, SCENARIOS, [scenario]);
}

async function rulesOf(namespace: Namespace): Promise<number[]> {
  const rules = await namespace.ip<{ priority: number; protocol?: string }>("-4", "rule", "show");
  return rules.filter(({ protocol }) => protocol === "87").map(({ priority }) => priority);
}

async function mtuOf(namespace: Namespace, name: string): Promise<number | undefined> {
  const links = await namespace.ip<{ ifname: string; mtu: number }>("link", "show");
  return links.find(({ ifname }) => ifname === name)?.mtu;
}

/** Runs the crash scenario and kills it where its changes are made; returns its journal. */
async function crash(namespace: Namespace): Promise<string> {
  await using child = namespace.spawn(Deno.execPath(), [
    "run",
    "--quiet",
    "--no-prompt",
    "--allow-ffi",
    SCENARIOS.pathname,
    "crash",
  ], { stderr: "inherit" });
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let line = "";
  while (!line.includes("\n")) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the scenario ended");
    line += value;
  }
  child.kill("SIGKILL");
  await child.status;
  await reader.cancel();
  return (JSON.parse(line) as { path: string }).path;
}

/** Where a journal of the namespace's would be, with this content. */
class Forgery implements Disposable {
  readonly path: string;

  constructor(name: string) {
    Deno.mkdirSync(FOLDER, { recursive: true, mode: 0o700 });
    this.path = `${FOLDER}/${name}`;
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path);
  }
}

systemTest(
  "repair() puts back what a killed process left, and the device goes by itself",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    await namespace.command("ip", ["tuntap", "add", "d0", "mode", "tun"]);
    const path = await crash(namespace);
    strictEqual(path.startsWith(`${FOLDER}/`), true);
    strictEqual(await mtuOf(namespace, "tun0"), undefined);
    strictEqual(await mtuOf(namespace, "d0"), 1380);
    deepStrictEqual(await rulesOf(namespace), [100]);
    strictEqual((await namespace.ip("route", "show", "198.51.100.0/24")).length, 1);
    strictEqual(Deno.statSync(path).mode! & 0o777, 0o600);

    const { found, refused } = await run<Summary>(namespace, "leftovers");
    deepStrictEqual(refused, []);
    deepStrictEqual(found.toSorted(), [
      ["d0", "set d0 to MTU 1380, up"],
      ["tun0", "add the IPv4 rule 100: from all lookup 51820", "add the route 198.51.100.0/24 to lo"],
    ]);
    // Another namespace's are nobody's there.
    await using other = await openNamespace();
    deepStrictEqual((await run<Summary>(other, "leftovers")).found, []);

    deepStrictEqual(await run(namespace, "repair"), { failures: [], after: { found: [], refused: [] } });
    deepStrictEqual(await rulesOf(namespace), []);
    deepStrictEqual(await namespace.ip("route", "show", "198.51.100.0/24"), []);
    strictEqual(await mtuOf(namespace, "d0"), 1500);
    deepStrictEqual([...Deno.readDirSync(FOLDER)].filter(({ name }) => path.endsWith(name)), []);
  },
);

systemTest("repair() does what is left when a part is gone already, and only once", NEEDS, async () => {
  await using namespace = await openNamespace();
  await crash(namespace);
  await namespace.command("ip", ["rule", "del", "priority", "100"]);
  deepStrictEqual(await run(namespace, "repairTwice"), [[], []]);
  deepStrictEqual(await namespace.ip("route", "show", "198.51.100.0/24"), []);
  deepStrictEqual((await run<Summary>(namespace, "leftovers")).found, []);
});

systemTest("repair() leaves a link alone that has the index of another now", NEEDS, async () => {
  await using namespace = await openNamespace();
  await namespace.command("ip", ["tuntap", "add", "d0", "mode", "tun"]);
  await crash(namespace);
  await namespace.command("ip", ["link", "set", "d0", "down"]);
  await namespace.command("ip", ["link", "set", "d0", "name", "other"]);
  deepStrictEqual(await run(namespace, "repair"), { failures: [], after: { found: [], refused: [] } });
  strictEqual(await mtuOf(namespace, "other"), 1380);
});

systemTest(
  "Journal keeps a file while it has entries, and a living process has no leftovers",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    deepStrictEqual(await run(namespace, "live"), [
      true,
      false,
      true,
      { found: [], refused: [] },
      true,
      false,
      false,
    ]);
  },
);

systemTest("Journal.record() refuses what takes nothing back", NEEDS, async () => {
  await using namespace = await openNamespace();
  deepStrictEqual(await run(namespace, "wrong"), [
    'TypeError: Cannot undo "add a rule": RTM_GETRULE takes no change back',
    'TypeError: Cannot undo "add a rule": it is not one whole message',
    'TypeError: Cannot undo "add a rule": it is not one whole message',
  ]);
});

systemTest("leftovers() refuses forged files with what to do about them", NEEDS, async (context) => {
  await using namespace = await openNamespace();
  const genuine = await crash(namespace);
  const text = Deno.readTextFileSync(genuine);
  const content = JSON.parse(text) as { changes: { description: string; undo: string }[] };
  const { undo } = content.changes[0]!;
  const name = `${Deno.pid}-1-forged.json`;

  const refusal = async (title: string, forge: (path: string) => void, message: RegExp): Promise<void> => {
    await context.step(title, async () => {
      using forgery = new Forgery(name);
      forge(forgery.path);
      const { found, refused } = await run<Summary>(namespace, "leftovers");
      strictEqual(refused.length, 1);
      match(refused[0]!, message);
      ok(refused[0]!.includes(forgery.path) && refused[0]!.length < 600, refused[0]);
      // The genuine one is found all the same.
      deepStrictEqual(found.map(([device]) => device), ["tun0"]);
    });
  };
  const write = (path: string, data: unknown): void =>
    Deno.writeTextFileSync(path, typeof data === "string" ? data : JSON.stringify(data), { mode: 0o600 });
  const changed = (undo: string): unknown => ({ ...content, changes: [{ description: "x", undo }] });
  /** The hexadecimal text with the byte at `offset` replaced. */
  const patch = (offset: number, byte: string): string =>
    undo.slice(0, offset * 2) + byte + undo.slice(offset * 2 + 2);

  await refusal("another owner", (path) => {
    write(path, text);
    Deno.chownSync(path, NOBODY, NOBODY);
  }, /^PermissionDenied: Cannot trust .*: it belongs to the user 65534, not to 0 or root: remove it$/);
  await refusal("others may write", (path) => {
    write(path, text);
    Deno.chmodSync(path, 0o622);
  }, /others may write to it: remove it$/);
  await refusal(
    "a symbolic link",
    (path) => Deno.symlinkSync(genuine, path),
    /ELOOP \(40\): it is a symbolic link: remove it$/,
  );
  await refusal("a FIFO", (path) => {
    new Deno.Command("mkfifo", { args: ["-m", "600", path] }).outputSync();
  }, /it is not a file: remove it$/);
  await refusal("a folder", (path) => Deno.mkdirSync(path), /it is not a file: remove it$/);
  await refusal(
    "garbage",
    (path) => write(path, "\u0000\u0001garbage"),
    /it is no JSON, or cut short: remove it$/,
  );
  await refusal("bytes that are no text", (path) => {
    Deno.writeFileSync(path, Uint8Array.of(0xff, 0xfe, 0xff), { mode: 0o600 });
  }, /no UTF-8/);
  await refusal(
    "cut short",
    (path) => write(path, text.slice(0, -20)),
    /it is no JSON, or cut short: remove it$/,
  );
  await refusal("huge", (path) => {
    write(path, "");
    Deno.truncateSync(path, 2 ** 31);
  }, /^RangeError: Cannot read .*: it is 2147483648 bytes long, more than 1048576/);
  await refusal(
    "another version",
    (path) => write(path, { ...content, version: 2 }),
    /its version is not 1: remove it$/,
  );
  await refusal("no object", (path) => write(path, [1]), /it is no object: remove it$/);
  await refusal(
    "no place",
    (path) => write(path, { ...content, boot: 1 }),
    /it does not say where it was written/,
  );
  await refusal("no device", (path) => write(path, { ...content, device: "../x" }), /it names no device/);
  await refusal(
    "no changes",
    (path) => write(path, { ...content, changes: {} }),
    /it has no list of changes/,
  );
  await refusal("no undo", (path) => write(path, { ...content, changes: [7] }), /no description or no undo/);
  await refusal("no hexadecimal", (path) => write(path, changed("xyz")), /remove it$/);
  await refusal(
    "a length that lies",
    (path) => write(path, changed(patch(0, "ff"))),
    /it is not one whole message/,
  );
  await refusal("two messages", (path) => write(path, changed(undo + undo)), /it is not one whole message/);
  await refusal(
    "an attribute that lies",
    (path) => write(path, changed(patch(28, "ff"))),
    /its lengths do not fit/,
  );
  await refusal(
    "a message that takes nothing back",
    (path) => write(path, changed(patch(4, "1e"))),
    /message type 30 takes no change back/,
  );
  await refusal(
    "flags of a new rule",
    (path) => write(path, changed(patch(7, "06"))),
    /its flags are not an undo's/,
  );
  const rename = "280000001000050000000000000000000000000001000000000000000000000007000300616200" + "00";
  await refusal(
    "a link renamed",
    (path) => write(path, changed(rename)),
    /it sets more of a link than Warren does/,
  );

  await context.step("a name that is no journal's", async () => {
    using forgery = new Forgery("1-x.json");
    write(forgery.path, text);
    const { refused } = await run<Summary>(namespace, "leftovers");
    match(refused.join(), /its name is not a journal's: remove it$/);
  });
  await context.step("one of a process whose number another has now is found", async () => {
    using forgery = new Forgery(name);
    write(forgery.path, text);
    const { found, refused } = await run<Summary>(namespace, "leftovers");
    deepStrictEqual(refused, []);
    strictEqual(found.length, 2);
  });
  await context.step("one from before the system's start has nothing to repair", async () => {
    using forgery = new Forgery(name);
    write(forgery.path, { ...content, boot: "another" });
    const { found, refused } = await run<Summary>(namespace, "leftovers");
    deepStrictEqual(refused, []);
    deepStrictEqual(found.filter((leftover) => leftover.length === 1), [["tun0"]]);
  });
  deepStrictEqual(await run(namespace, "repair"), { failures: [], after: { found: [], refused: [] } });
  deepStrictEqual(await rulesOf(namespace), []);
});

systemTest("Journal.open() refuses a folder that is not its user's alone", NEEDS, async () => {
  await using namespace = await openNamespace();
  // A /run and /tmp of their own, which others can write to.
  const script = (prepare: string): string =>
    `mount -t tmpfs none /run; mount -t tmpfs -o mode=1777 none /tmp; ${prepare}; ` +
    `exec ${Deno.execPath()} run --quiet --no-prompt --allow-ffi ${SCENARIOS.pathname} path`;
  const path = async (prepare: string, env: Record<string, string> = {}): Promise<string> => {
    const { stdout } = await namespace.command("unshare", ["-m", "sh", "-c", script(prepare)], {
      env: { XDG_RUNTIME_DIR: "", ...env },
    });
    return JSON.parse(stdout);
  };
  match(await path("true"), /^\/run\/warren\/\d+-\d+-tun0\.json$/);
  match(await path("mkdir -m 777 /run/warren"), /^\/tmp\/warren-0\//);
  match(await path("mkdir -m 700 /run/warren; chown 65534 /run/warren"), /^\/tmp\/warren-0\//);
  match(
    await path("mkdir -m 777 /run/warren; mkdir /tmp/x", { XDG_RUNTIME_DIR: "/tmp/x" }),
    /^\/tmp\/x\/warren\//,
  );
  match(
    await path("mkdir /tmp/x; ln -s /tmp/x /run/warren; ln -s /tmp/x /tmp/warren-0"),
    /^PermissionDenied: Cannot open a journal: Cannot open "\/run\/warren": ENOTDIR .*; Cannot open "\/tmp\/warren-0": /,
  );
  match(
    await path("mount -o remount,ro /run; mount -o remount,ro /tmp"),
    /^PermissionDenied: Cannot open a journal: Cannot make "\/run\/warren": EROFS \(30\); Cannot make/,
  );
});

systemTest("a user who is not root has a journal of its own", NEEDS, async () => {
  await using namespace = await openNamespace();
  const modules = Deno.makeTempDirSync();
  try {
    // The user cannot see the repository, and needs a cache of its own.
    await namespace.command("cp", ["-r", new URL("../../lib", import.meta.url).pathname, modules]);
    await namespace.command("cp", ["-r", new URL("../../driver", import.meta.url).pathname, modules]);
    Deno.mkdirSync(`${modules}/tests/system`, { recursive: true });
    await namespace.command("cp", ["-r", new URL("../kit", import.meta.url).pathname, `${modules}/tests`]);
    Deno.copyFileSync(SCENARIOS, `${modules}/tests/system/journal_scenarios.ts`);
    await namespace.command("chown", ["-R", String(NOBODY), modules]);
    const { stdout } = await namespace.command("setpriv", [
      `--reuid=${NOBODY}`,
      "--clear-groups",
      Deno.execPath(),
      "run",
      "--quiet",
      "--no-prompt",
      "--no-config",
      "--allow-ffi",
      `${modules}/tests/system/journal_scenarios.ts`,
      "path",
    ], { env: { XDG_RUNTIME_DIR: modules, DENO_DIR: `${modules}/cache`, HOME: modules } });
    ok((JSON.parse(stdout) as string).startsWith(`${modules}/warren/`), stdout);
    const { mode, uid } = Deno.statSync(`${modules}/warren`);
    deepStrictEqual([mode! & 0o777, uid], [0o700, NOBODY]);
  } finally {
    Deno.removeSync(modules, { recursive: true });
  }
});
