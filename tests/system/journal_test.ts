/** Journals of real crashes, real files and forged ones, in network namespaces. */

import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { type Namespace, openNamespace, systemTest } from "../kit/system.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const SCENARIOS = "tests/system/journal_scenarios.ts";
const NEEDS = { programs: ["ip", "unshare", "mount", "setpriv"] };
const FOLDER = "/run/warren";
const NOBODY = 65534;
const DENO_RUN = ["run", "--quiet", "--no-prompt", "--no-config", "--allow-ffi"];

interface Summary {
  found: string[][];
  refused: string[];
  /** Number of journals of other namespaces. */
  otherNamespaces: number;
}

/** Nothing is left. */
const CLEAN: Summary = { found: [], refused: [], otherNamespaces: 0 };

/** A network namespace with a /run of its own. */
class Machine implements AsyncDisposable {
  readonly namespace: Namespace;
  /** Its /run. */
  readonly #run: string;

  private constructor(namespace: Namespace, run: string) {
    this.namespace = namespace;
    this.#run = run;
  }

  static async open(): Promise<Machine> {
    return new Machine(await openNamespace(), Deno.makeTempDirSync());
  }

  /** Path outside the machine of a file in its /run. */
  path(inside: string): string {
    return inside.replace("/run", this.#run);
  }

  /** Arguments of `unshare` for a scenario in it; with `processes`, in a new PID namespace. */
  arguments(scenario: string, run = this.#run, processes = false): string[] {
    const numbers = processes ? ["-pf", "--mount-proc"] : [];
    const script = 'mount --bind "$0" /run && exec "$@"';
    return [
      "-m",
      ...numbers,
      "sh",
      "-c",
      script,
      run,
      Deno.execPath(),
      ...DENO_RUN,
      ROOT + SCENARIOS,
      scenario,
    ];
  }

  /** Runs a scenario to its end. */
  async run<Result>(scenario: string): Promise<Result> {
    return JSON.parse((await this.namespace.command("unshare", this.arguments(scenario))).stdout);
  }

  /** Runs a scenario that waits, and kills it then; returns the path of its journal. */
  async crash(scenario = "crash", processes = false): Promise<string> {
    await using child = this.namespace.spawn("unshare", this.arguments(scenario, this.#run, processes), {
      // unshare reports that its child was killed.
      stderr: processes ? "null" : "inherit",
    });
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    let line = "";
    while (!line.includes("\n")) {
      const { value, done } = await reader.read();
      if (done) throw new Error("the scenario ended");
      line += value;
    }
    const { path, pid } = JSON.parse(line) as { path: string; pid: number };
    Deno.kill(processes ? await onlyChildOf(child.pid) : pid, "SIGKILL");
    await child.status;
    await reader.cancel();
    return path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.namespace[Symbol.asyncDispose]();
    Deno.removeSync(this.#run, { recursive: true });
  }
}

/** PID of the child of `unshare -f`, whose PID in its own namespace is of no use here. */
async function onlyChildOf(pid: number): Promise<number> {
  return Number((await Deno.readTextFile(`/proc/${pid}/task/${pid}/children`)).trim());
}

async function rulesOf(namespace: Namespace): Promise<number[]> {
  const rules = await namespace.ip<{ priority: number; protocol?: string }>("-4", "rule", "show");
  return rules.filter(({ protocol }) => protocol === "87").map(({ priority }) => priority);
}

async function mtuOf(namespace: Namespace, name: string): Promise<number | undefined> {
  const links = await namespace.ip<{ ifname: string; mtu: number }>("link", "show");
  return links.find(({ ifname }) => ifname === name)?.mtu;
}

/** A forged file in a machine's journal folder. */
class Forgery implements Disposable {
  /** Path inside the machine. */
  readonly inside: string;
  readonly path: string;

  constructor(machine: Machine, name: string) {
    Deno.mkdirSync(machine.path(FOLDER), { recursive: true, mode: 0o700 });
    this.inside = `${FOLDER}/${name}`;
    this.path = machine.path(this.inside);
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path);
  }
}

systemTest(
  "repair() undoes the changes of a killed process, whose device the kernel removes",
  NEEDS,
  async () => {
    await using machine = await Machine.open();
    const { namespace } = machine;
    await namespace.command("ip", ["tuntap", "add", "d0", "mode", "tun"]);
    const path = await machine.crash();
    strictEqual(path.startsWith(`${FOLDER}/`), true);
    strictEqual(await mtuOf(namespace, "tun0"), undefined);
    strictEqual(await mtuOf(namespace, "d0"), 1380);
    deepStrictEqual(await rulesOf(namespace), [100]);
    strictEqual((await namespace.ip("route", "show", "198.51.100.0/24")).length, 1);
    strictEqual(Deno.statSync(machine.path(path)).mode! & 0o777, 0o600);

    const { found, refused } = await machine.run<Summary>("leftovers");
    deepStrictEqual(refused, []);
    deepStrictEqual(found.toSorted(), [
      ["d0", "set d0 to MTU 1380, up"],
      ["tun0", "add the IPv4 rule 100: from all lookup 51820", "add the route 198.51.100.0/24 to lo"],
    ]);
    // In another network namespace they count as journals of other namespaces.
    await using other = await openNamespace();
    const { stdout } = await other.command("unshare", machine.arguments("leftovers"));
    const { found: foundThere, otherNamespaces } = JSON.parse(stdout) as Summary;
    deepStrictEqual([foundThere, otherNamespaces], [[], 2]);

    deepStrictEqual(await machine.run("repair"), { failures: [], after: CLEAN });
    deepStrictEqual(await rulesOf(namespace), []);
    deepStrictEqual(await namespace.ip("route", "show", "198.51.100.0/24"), []);
    strictEqual(await mtuOf(namespace, "d0"), 1500);
    deepStrictEqual([...Deno.readDirSync(machine.path(FOLDER))], []);
  },
);

systemTest("repair() undoes the rest when a part is gone already, and only once", NEEDS, async () => {
  await using machine = await Machine.open();
  const { namespace } = machine;
  await machine.crash();
  await namespace.command("ip", ["rule", "del", "priority", "100"]);
  deepStrictEqual(await machine.run("repairTwice"), [[], []]);
  deepStrictEqual(await namespace.ip("route", "show", "198.51.100.0/24"), []);
  deepStrictEqual((await machine.run<Summary>("leftovers")).found, []);
});

systemTest("repair() leaves a renamed link alone", NEEDS, async () => {
  await using machine = await Machine.open();
  const { namespace } = machine;
  await namespace.command("ip", ["tuntap", "add", "d0", "mode", "tun"]);
  await machine.crash();
  await namespace.command("ip", ["link", "set", "d0", "down"]);
  await namespace.command("ip", ["link", "set", "d0", "name", "other"]);
  deepStrictEqual(await machine.run("repair"), { failures: [], after: CLEAN });
  strictEqual(await mtuOf(namespace, "other"), 1380);
});

systemTest(
  "Journal keeps a file while it has entries, and a living process has no leftovers",
  NEEDS,
  async () => {
    await using machine = await Machine.open();
    deepStrictEqual(await machine.run("live"), [
      false,
      true,
      CLEAN,
      true,
      false,
      true,
      false,
    ]);
  },
);

systemTest("Journal.record() refuses an undo that does not undo a change", NEEDS, async () => {
  await using machine = await Machine.open();
  deepStrictEqual(await machine.run("wrong"), [
    'TypeError: Cannot undo "add a rule": RTM_GETRULE does not undo a change',
    'TypeError: Cannot undo "add a rule": it is not one whole message',
    'TypeError: Cannot undo "add a rule": it is not one whole message',
  ]);
});

systemTest("leftovers() refuses forged files and names the remedy", NEEDS, async (context) => {
  await using machine = await Machine.open();
  const { namespace } = machine;
  const genuine = await machine.crash();
  const text = Deno.readTextFileSync(machine.path(genuine));
  const [head, first, ...rest] = text.trimEnd().split("\n");
  const { undo } = JSON.parse(first!) as { undo: string };
  const name = `${Deno.pid}-0123456789abcdef-forged.jsonl`;

  const refusal = async (title: string, forge: (path: string) => void, message: RegExp): Promise<void> => {
    await context.step(title, async () => {
      using forgery = new Forgery(machine, name);
      forge(forgery.path);
      const { found, refused } = await machine.run<Summary>("leftovers");
      strictEqual(refused.length, 1);
      match(refused[0]!, message);
      ok(refused[0]!.includes(forgery.inside) && refused[0]!.length < 600, refused[0]);
      // The genuine journal is still found.
      deepStrictEqual(found.map(([device]) => device), ["tun0"]);
    });
  };
  const write = (path: string, data: string): void => Deno.writeTextFileSync(path, data, { mode: 0o600 });
  /** A journal with changed values in the first line, followed by these lines. */
  const journal = (values: object, ...lines: unknown[]): string =>
    [{ ...JSON.parse(head!), ...values }, ...lines].map((line) => `${JSON.stringify(line)}\n`).join("");
  const changed = (undo: string): string => journal({}, { description: "x", undo });
  /** The hexadecimal text with the byte at `offset` replaced. */
  const patch = (offset: number, byte: string): string =>
    undo.slice(0, offset * 2) + byte + undo.slice(offset * 2 + 2);

  await refusal("another owner", (path) => {
    write(path, text);
    Deno.chownSync(path, NOBODY, NOBODY);
  }, /^PermissionDenied: Cannot trust .*: its owner must be user 0 or root, got user 65534: remove it$/);
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
  }, /it is not a regular file: remove it$/);
  await refusal("a folder", (path) => Deno.mkdirSync(path), /it is not a regular file: remove it$/);
  await refusal(
    "garbage",
    (path) => write(path, "\u0000\u0001garbage\n"),
    /line 1: it is not JSON: remove it$/,
  );
  await refusal("bytes that are not UTF-8", (path) => {
    Deno.writeFileSync(path, Uint8Array.of(0xff, 0xfe, 0xff, 0x0a), { mode: 0o600 });
  }, /it is not UTF-8: remove it$/);
  await refusal(
    "a line in the middle that is cut short",
    (path) => write(path, [head, first!.slice(0, -20), ...rest, ""].join("\n")),
    /line 2: it is not JSON: remove it$/,
  );
  await refusal("huge", (path) => {
    write(path, "");
    Deno.truncateSync(path, 2 ** 31);
  }, /^RangeError: Cannot read .*: it must have at most 16777216 bytes, got 2147483648: remove it$/);
  await refusal(
    "another version",
    (path) => write(path, journal({ version: 1 })),
    /line 1: version must be 2, got 1: remove it$/,
  );
  await refusal("no object", (path) => write(path, "[1]\n"), /line 1: it is not an object: remove it$/);
  await refusal(
    "no place",
    (path) => write(path, journal({ boot: 1 })),
    /line 1: boot, network and since must be strings/,
  );
  await refusal(
    "a line that is not a change",
    (path) => write(path, journal({}, { description: "x" })),
    /line 2: it must have description and undo, or forget with the number of an entry/,
  );
  await refusal(
    "the number of an entry that does not exist",
    (path) => write(path, journal({}, { forget: 0 })),
    /line 2: it must have description/,
  );
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
    /a length in it is wrong/,
  );
  await refusal(
    "a message that does not undo a change",
    (path) => write(path, changed(patch(4, "1e"))),
    /message type 30 does not undo a change/,
  );
  await refusal(
    "a message that adds a rule",
    (path) => write(path, changed(patch(4, "20"))),
    /RTM_NEWRULE does not undo a change/,
  );
  await refusal(
    "flags of a new rule",
    (path) => write(path, changed(patch(7, "06"))),
    /its flags are not those of an undo/,
  );
  const rename = "280000001000050000000000000000000000000001000000000000000000000007000300616200" + "00";
  await refusal(
    "a link renamed",
    (path) => write(path, changed(rename)),
    /it sets more than MTU, queue length, up or down of a link/,
  );

  await context.step("a name that is not that of a journal", async () => {
    using forgery = new Forgery(machine, "1-x.json");
    write(forgery.path, text);
    const { refused } = await machine.run<Summary>("leftovers");
    match(refused.join(), /its name is not that of a journal: remove it$/);
  });
  const found = async (title: string, content: string, expected: string[][]): Promise<void> => {
    await context.step(title, async () => {
      using forgery = new Forgery(machine, name);
      write(forgery.path, content);
      const { found, refused } = await machine.run<Summary>("leftovers");
      deepStrictEqual(refused, []);
      deepStrictEqual(found.filter(([device]) => device === "forged"), expected);
    });
  };
  const description = "add the IPv4 rule 100: from all lookup 51820";
  await found("the PID of a living process does not count", `${head}\n${first}\n`, [
    ["forged", description],
  ]);
  await found("a truncated last line is ignored", `${head}\n${first}\n${rest[0]!.slice(0, -1)}`, [
    ["forged", description],
  ]);
  await context.step("a last line truncated within a character is ignored", async () => {
    using forgery = new Forgery(machine, name);
    const bytes = new TextEncoder().encode(`${head}\n${first}\n{"description":"ü`);
    Deno.writeFileSync(forgery.path, bytes.subarray(0, -1), { mode: 0o600 });
    const { found, refused } = await machine.run<Summary>("leftovers");
    deepStrictEqual(refused, []);
    deepStrictEqual(found.filter(([device]) => device === "forged"), [["forged", description]]);
  });
  await found("a truncated first line leaves nothing to repair", head!.slice(0, 30), [["forged"]]);
  await found("an empty file leaves nothing to repair", "", [["forged"]]);
  await found("struck-out changes are not repaired", `${text}{"forget":0}\n{"forget":1}\n`, [["forged"]]);
  await found(
    "a journal from before the last boot leaves nothing to repair",
    journal({ boot: "another" }, JSON.parse(first!)),
    [["forged"]],
  );
  await found("a journal of another network namespace is left alone", journal({ network: "cookie:00" }), []);
  deepStrictEqual(await machine.run("repair"), { failures: [], after: CLEAN });
  deepStrictEqual(await rulesOf(namespace), []);
});

/** Runs the scenario `path` with new /run, /tmp and /dev/shm after `prepare`, and returns its output. */
async function pathAfter(prepare: string, env: Record<string, string> = {}, user = ""): Promise<string> {
  await using namespace = await openNamespace();
  // The checkout and Deno may be in one of those folders.
  const script = `mount -t tmpfs none /mnt; cd "$1"; mkdir /mnt/checkout /mnt/user
    cp -r --parents lib driver tests/kit ${SCENARIOS} /mnt/checkout
    touch /mnt/deno; mount --bind "$2" /mnt/deno; cd /mnt; chown ${NOBODY} user
    mount -t tmpfs none /run; mount -t tmpfs -o mode=1777 none /tmp; mount -t tmpfs -o mode=1777 none /dev/shm
    ${prepare}
    ${user} /mnt/deno ${DENO_RUN.join(" ")} checkout/${SCENARIOS} path; ls -ldn /mnt/user/warren 1>&2`;
  const { stdout, stderr } = await namespace.command(
    "unshare",
    ["-m", "sh", "-c", script, "sh", ROOT, Deno.execPath()],
    { env: { XDG_RUNTIME_DIR: "", DENO_DIR: "/mnt/user/cache", HOME: "/mnt/user", ...env }, check: false },
  );
  if (stdout === "") throw new Error(stderr);
  if (user !== "") match(stderr, /^drwx------ \d+ 65534 /m);
  return JSON.parse(stdout);
}

systemTest(
  "Journal uses the first folder that is private to its user and accepts the write",
  NEEDS,
  async () => {
    const path = pathAfter;
    match(await path("true"), /^\/run\/warren\/\d+-[0-9a-f]{16}-tun0\.jsonl$/);
    match(await path("mkdir -m 777 /run/warren"), /^\/tmp\/warren-0\//);
    match(await path("mkdir -m 700 /run/warren; chown 65534 /run/warren"), /^\/tmp\/warren-0\//);
    match(await path("chmod 777 /run"), /^\/tmp\/warren-0\//);
    match(
      await path("mkdir -m 777 /run/warren; mkdir /tmp/x", { XDG_RUNTIME_DIR: "/tmp/x" }),
      /^\/tmp\/x\/warren\//,
    );
    match(
      await path("mkdir -m 777 /run/warren; mkdir /tmp/x; chown 65534 /tmp/x", { XDG_RUNTIME_DIR: "/tmp/x" }),
      /^\/tmp\/warren-0\//,
    );
    match(await path("mount -o remount,ro /run"), /^\/tmp\/warren-0\//);
    match(await path("mount -o remount,ro /run; mount -o remount,ro /tmp"), /^\/dev\/shm\/warren-0\//);
    // A file system of two pages: one for the folder, one for a file that fills it.
    const full = (folder: string) =>
      `mount -t tmpfs -o size=8k,mode=1777 none ${folder}; head -c 8192 /dev/zero > ${folder}/full`;
    match(await path(full("/run")), /^\/tmp\/warren-0\//);
    match(await path(`${full("/run")}; ${full("/tmp")}`), /^\/dev\/shm\/warren-0\//);
    match(
      await path(
        "mkdir /tmp/x; for i in /run/warren /tmp/warren-0 /dev/shm/warren-0; do ln -s /tmp/x $i; done",
      ),
      /^PermissionDenied: Cannot keep a journal: Cannot open "\/run\/warren": ENOTDIR .*; Cannot open "\/tmp\/warren-0": .*: make one of these folders writable$/,
    );
    match(
      await path("for i in /run /tmp /dev/shm; do mount -o remount,ro $i; done"),
      /^PermissionDenied: Cannot keep a journal: Cannot create "\/run\/warren": EROFS \(30\); Cannot create/,
    );
  },
);

systemTest("the journal of a user other than root is in that user's folder", NEEDS, async () => {
  const path = await pathAfter(
    "true",
    { XDG_RUNTIME_DIR: "/mnt/user" },
    `setpriv --reuid=${NOBODY} --clear-groups`,
  );
  match(path, /^\/mnt\/user\/warren\//);
});

/** Times (milliseconds) and path that a scenario reports. */
interface Crowd {
  opened: number;
  undone: number;
  path: string;
}

async function countsOf(namespace: Namespace): Promise<Record<string, number>> {
  const rules = await namespace.ip<{ table?: string }>("-4", "rule", "show");
  const [d0] = await namespace.ip<{ addr_info: unknown[] }>("-4", "addr", "show", "d0");
  return {
    addresses: d0?.addr_info?.length ?? 0,
    routes: (await namespace.ip("route", "show", "dev", "d0", "proto", "87")).length,
    rules: rules.filter(({ table }) => table === "77").length,
  };
}

const CROWD = { addresses: 1000, routes: 5000, rules: 1000 };
const NONE = { addresses: 0, routes: 0, rules: 0 };
/** Maximum time for 7,000 changes and their journal on a loaded machine (milliseconds). */
const CROWD_LIMIT = 2000;

systemTest(
  "1,000 addresses, 5,000 routes and 1,000 rules of a persistent device are made and undone in 2 s",
  NEEDS,
  async () => {
    await using machine = await Machine.open();
    await machine.namespace.command("ip", ["tuntap", "add", "d0", "mode", "tun"]);
    const { opened, undone, path } = await machine.run<Crowd>("crowdUndone");
    ok(opened < CROWD_LIMIT && undone < CROWD_LIMIT, `${opened} ms, ${undone} ms`);
    strictEqual(path, "");
    deepStrictEqual(await countsOf(machine.namespace), NONE);
  },
);

systemTest("the watchdog's rescue undoes the changes in the journal and removes it", NEEDS, async () => {
  await using machine = await Machine.open();
  await machine.namespace.command("ip", ["tuntap", "add", "d0", "mode", "tun"]);
  const { code } = await machine.namespace.command("unshare", machine.arguments("crowdRescued"), {
    check: false,
  });
  strictEqual(code, 70);
  deepStrictEqual(await countsOf(machine.namespace), NONE);
  deepStrictEqual([...Deno.readDirSync(machine.path(FOLDER))], []);
});

systemTest("repair() undoes thousands of changes in 2 s", NEEDS, async () => {
  await using machine = await Machine.open();
  await machine.namespace.command("ip", ["tuntap", "add", "d0", "mode", "tun"]);
  await machine.crash("crowd");
  deepStrictEqual(await countsOf(machine.namespace), CROWD);
  const { took, ...rest } = await machine.run<{ took: number }>("crowdRepaired");
  deepStrictEqual(rest, { failures: [], after: CLEAN });
  ok(took < CROWD_LIMIT, `${took} ms`);
  deepStrictEqual(await countsOf(machine.namespace), NONE);
});

systemTest("repair() has nothing to do for a device that is gone", NEEDS, async () => {
  await using machine = await Machine.open();
  await machine.namespace.command("ip", ["tuntap", "add", "d0", "mode", "tun"]);
  await machine.crash();
  await machine.namespace.command("ip", ["link", "del", "d0"]);
  deepStrictEqual(await machine.run("repair"), { failures: [], after: CLEAN });
});

systemTest(
  "a change that fails undoes those before it, including those of the same datagram",
  NEEDS,
  async () => {
    await using machine = await Machine.open();
    await machine.namespace.command("ip", ["tuntap", "add", "d0", "mode", "tun"]);
    const { thrown, made, after, path } = await machine.run<Record<string, unknown>>("half");
    match(String(thrown), /^DriverError: Cannot add the route 11\.0\.99\.0\/24 to d0: EEXIST \(17\)/);
    ok(made as number >= 100 && made as number < 200, String(made));
    deepStrictEqual([after, path], [0, ""]);
  },
);

systemTest(
  "the journal of a container is repaired after its end, and left alone while it runs",
  NEEDS,
  async () => {
    await using machine = await Machine.open();
    await machine.crash("crash", true);
    deepStrictEqual(await rulesOf(machine.namespace), [100]);
    deepStrictEqual(await machine.run("repair"), { failures: [], after: CLEAN });
    deepStrictEqual(await rulesOf(machine.namespace), []);
    await using living = machine.namespace.spawn("unshare", machine.arguments("crash", undefined, true), {
      stderr: "null",
    });
    const reader = living.stdout.getReader();
    await reader.read();
    deepStrictEqual(await machine.run("repair"), { failures: [], after: CLEAN });
    deepStrictEqual(await rulesOf(machine.namespace), [100]);
    strictEqual([...Deno.readDirSync(machine.path(FOLDER))].length, 1);
    Deno.kill(await onlyChildOf(living.pid), "SIGKILL");
    await living.status;
    await reader.cancel();
  },
);

systemTest(
  "recover() repairs leftovers of its namespace, and keeps the newest 256 journals of others",
  NEEDS,
  async () => {
    await using machine = await Machine.open();
    const path = machine.path(await machine.crash());
    const [head, ...rest] = Deno.readTextFileSync(path).split("\n");
    for (let i = 0; i < 260; i++) {
      const since = new Date(i * 60_000).toISOString();
      const text = [JSON.stringify({ ...JSON.parse(head!), network: "cookie:00", since }), ...rest].join(
        "\n",
      );
      const name = `1-${i.toString(16).padStart(16, "0")}-tun0.jsonl`;
      Deno.writeTextFileSync(`${machine.path(FOLDER)}/${name}`, text, { mode: 0o600 });
    }
    deepStrictEqual(await machine.run("recover"), { ...CLEAN, otherNamespaces: 256 });
    deepStrictEqual(await rulesOf(machine.namespace), []);
    const names = Array.from(Deno.readDirSync(machine.path(FOLDER)), ({ name }) => name).sort();
    strictEqual(names[0], "1-0000000000000004-tun0.jsonl");
  },
);

systemTest("repair() reports the first of many failures, and keeps the journal", NEEDS, async () => {
  await using machine = await Machine.open();
  await machine.namespace.command("ip", ["tuntap", "add", "d0", "mode", "tun"]);
  await machine.crash("crowd");
  const withoutRights = [
    "-m",
    "sh",
    "-c",
    `mount --bind "$0" /run && exec setpriv --bounding-set -net_admin "$@"`,
  ];
  const [, , , , ...words] = machine.arguments("repair");
  const { stdout } = await machine.namespace.command("unshare", [...withoutRights, ...words]);
  const { failures, after } = JSON.parse(stdout) as { failures: string[]; after: Summary };
  strictEqual(failures.length, 5);
  match(failures[0]!, /EPERM \(1\)/);
  match(failures[4]!, /^Error: Cannot undo 6\d{3} other changes: see the first failures$/);
  strictEqual(after.found.length, 1);
  deepStrictEqual(await countsOf(machine.namespace), CROWD);
});

systemTest(
  "Journal.record() refuses entries beyond the maximum length, before the change",
  NEEDS,
  async () => {
    await using machine = await Machine.open();
    const { thrown, lines, path } = await machine.run<Record<string, unknown>>("limit");
    match(
      String(thrown),
      /^RangeError: Cannot add the IPv4 rule 1: from all lookup 51820: the journal of "tun0" must have at most 16777216 bytes: set fewer/,
    );
    deepStrictEqual([lines, path], [2, "none"]);
  },
);

systemTest(
  "a journal whose entries come and go stays short, and keeps those that are left",
  NEEDS,
  async () => {
    await using machine = await Machine.open();
    const { longest, left } = await machine.run<Record<string, unknown>>("turns");
    ok(longest as number < 300_000, String(longest));
    deepStrictEqual(left, [[
      "add the IPv4 rule 1: from all lookup 51820",
      "add the IPv4 rule 30000: from all lookup 51820",
    ]]);
  },
);

systemTest("a journal moves to the next folder when its own becomes full", NEEDS, async () => {
  await using namespace = await openNamespace();
  const script = `mount -t tmpfs -o size=8k,mode=755 none /run && cd "$0" && exec "$@"`;
  const { stdout } = await namespace.command("unshare", [
    "-m",
    "sh",
    "-c",
    script,
    ROOT,
    Deno.execPath(),
    ...DENO_RUN,
    SCENARIOS,
    "full",
  ], { env: { XDG_RUNTIME_DIR: "" } });
  const { first, second, ...rest } = JSON.parse(stdout);
  match(first, /^\/run\/warren\//);
  match(second, /^\/tmp\/warren-0\//);
  deepStrictEqual(rest, { gone: true, shared: true, left: [[true, 200]] });
  Deno.removeSync(second);
});

systemTest(
  "leftovers() does not list a folder of another user, nor one with too many files",
  NEEDS,
  async () => {
    await using machine = await Machine.open();
    const folder = machine.path(FOLDER);
    Deno.mkdirSync(folder, { mode: 0o700 });
    for (let i = 0; i < 4097; i++) Deno.writeTextFileSync(`${folder}/${i}.jsonl`, "");
    const own = await machine.run<Summary>("leftovers");
    match(own.refused.join(), /^RangeError: Cannot list "\/run\/warren": it must have at most 4096 files/);
    Deno.chownSync(folder, NOBODY, NOBODY);
    const other = await machine.run<Summary>("leftovers");
    match(
      other.refused.join(),
      /^PermissionDenied: Cannot trust "\/run\/warren": it must belong to user 0 with mode 700, got user 65534 with mode 700: remove it/,
    );
    strictEqual(own.found.length + other.found.length, 0);
  },
);

systemTest("warren doctor reports leftovers with their time and process", NEEDS, async () => {
  await using machine = await Machine.open();
  await machine.namespace.command("ip", ["tuntap", "add", "d0", "mode", "tun"]);
  await machine.crash("crowd");
  const [unshare, ...words] = machine.arguments("leftovers");
  const command = [
    ...words.slice(0, -DENO_RUN.length - 2),
    "run",
    "-A",
    `${ROOT}runtime/cli/main.ts`,
    "doctor",
  ];
  const doctor = async (...flags: string[]) =>
    (await machine.namespace.command("unshare", [unshare!, ...command, ...flags], {
      check: false,
      env: { NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" },
    })).stdout.split("\n").find((line) => line.includes("leftovers")) ?? "";
  match(
    await doctor(),
    /^fail {2}leftovers: process \d+ with device d0: add the address 10\.9\.0\.0\/16 to d0; .*; and \d+ more changes \(\/run\/warren\/.*\) \(since \d{4}-.*Z\): warren doctor --repair$/,
  );
  match(await doctor("--repair"), /^ok {4}leftovers: repaired: process \d+ with device d0/);
  deepStrictEqual(await countsOf(machine.namespace), NONE);
});
