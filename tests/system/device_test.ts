/** TUN devices of the real kernel: setup, undo, and every way to get them wrong. */

import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";
import { command, type Namespace, openNamespace, runModule, systemTest } from "../kit/system.ts";
import type { Datagram } from "./plain_reader_scenario.ts";
import type { Thrown } from "./scenario.ts";

const SCENARIO = new URL("./scenario.ts", import.meta.url);
const PLAIN_READER = new URL("./plain_reader_scenario.ts", import.meta.url);
const NEEDS = { programs: ["ip", "ping"] };

interface Link {
  ifname: string;
  mtu: number;
  txqlen: number;
  flags: string[];
}

/** Runs a scenario; returns the JSON that it prints. */
function run<Result>(namespace: Namespace, scenario: string, options: unknown = {}): Promise<Result> {
  return runModule<Result>(namespace, SCENARIO, [scenario, JSON.stringify(options)]);
}

async function opening(namespace: Namespace, options: unknown): Promise<Thrown> {
  const { thrown } = await run<{ thrown?: Thrown }>(namespace, "open", options);
  assert.ok(thrown !== undefined, `opening ${JSON.stringify(options)} worked`);
  return thrown;
}

/** Starts a scenario that keeps running, and waits until it is ready. */
async function start(namespace: Namespace, scenario: string, options: unknown): Promise<Scenario> {
  const child = namespace.spawn(Deno.execPath(), [
    "run",
    "--quiet",
    "--allow-ffi",
    fileURLToPath(SCENARIO),
    scenario,
    JSON.stringify(options),
  ]);
  const started = new Scenario(child);
  await started.said("ready");
  return started;
}

class Scenario {
  readonly child: Deno.ChildProcess;
  readonly #errors: ReadableStreamDefaultReader<string>;
  heard = "";

  constructor(child: Deno.ChildProcess) {
    this.child = child;
    this.#errors = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** Waits for a text on its standard error. */
  async said(word: string): Promise<void> {
    while (!this.heard.includes(word)) {
      const { done, value } = await this.#errors.read();
      if (done) throw new Error(`It ended without "${word}": ${this.heard}`);
      this.heard += value;
    }
  }

  /** Waits for its end; returns its exit code and output. */
  async ended(): Promise<{ code: number; printed: string; heard: string }> {
    const printed = await new Response(this.child.stdout).text();
    for (let read = await this.#errors.read(); !read.done; read = await this.#errors.read()) {
      this.heard += read.value;
    }
    const { code } = await this.child.status;
    return { code, printed, heard: this.heard };
  }
}

/** All state that a script could leave behind, as `ip` shows it. */
async function state(namespace: Namespace): Promise<unknown> {
  // The kernel assigns a queueing discipline when a device is first set up, and keeps it.
  const show = async (...words: string[]) =>
    (await namespace.ip<Record<string, unknown>>(...words)).map(({ qdisc: _, ...entry }) => entry);
  return await Promise.all([
    show("addr"),
    show("route", "show", "table", "all"),
    show("-6", "route", "show", "table", "all"),
    show("rule"),
    show("-6", "rule"),
  ]);
}

systemTest(
  "openDevice() sets up addresses, MTU, queue, routes and rules, and close() leaves nothing",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    const before = await state(namespace);
    const options = {
      name: "w%d",
      address: ["10.9.0.1/24", "10.9.1.1/24", "fd09::1/64"],
      mtu: 1400,
      route: ["10.20.0.0/16", "10.30.0.0/16 via 10.9.0.2 metric 5 table 100", { to: "fd20::/32", metric: 7 }],
      rule: [{ table: 100, from: "10.9.0.0/24", priority: 500, mark: 3 }, { table: 100, family: 6 }],
      linux: { txQueueLength: 777 },
    };
    const scenario = await start(namespace, "echo", options);
    const [link] = await namespace.ip<Link>("link", "show", "dev", "w0") as [Link];
    assert.deepEqual([link.mtu, link.txqlen, link.flags.includes("UP")], [1400, 777, true]);
    const text = JSON.stringify(await state(namespace));
    for (const word of ["10.9.0.1", "10.9.1.1", "fd09::1", "10.20.0.0/16", "10.30.0.0/16", "fd20::/32"]) {
      assert.ok(text.includes(`"${word}"`), word);
    }
    const rules = await namespace.ip<{ priority: number; src: string; fwmark?: string }>("rule");
    assert.deepEqual(rules.find(({ priority }) => priority === 500)?.fwmark, "0x3");
    scenario.child.kill("SIGINT");
    assert.equal((await scenario.ended()).code, 0);
    assert.deepEqual(await state(namespace), before);
  },
);

systemTest("openDevice() leaves nothing behind when a later part of the options fails", NEEDS, async () => {
  await using namespace = await openNamespace();
  const before = await state(namespace);
  const route = "10.30.0.0/16 via 203.0.113.1";
  const thrown = await opening(namespace, { address: "10.9.0.1/24", rule: { table: 5 }, route });
  assert.equal(thrown.code, "ENETUNREACH");
  assert.match(
    thrown.message,
    /^Cannot add the route 10\.30\.0\.0\/16 .*: ENETUNREACH \(101\): Nexthop has invalid/,
  );
  assert.deepEqual(await state(namespace), before);
});

systemTest(
  "After SIGKILL only rules stay, which the next start removes",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    const before = await state(namespace);
    const options = { address: ["10.9.0.1/24", "fd09::1/64"], route: "10.20.0.0/16", mtu: 1300 };
    const plain = await start(namespace, "echo", options);
    plain.child.kill("SIGKILL");
    await plain.ended();
    assert.deepEqual(await state(namespace), before);

    const ruled = await start(namespace, "echo", { ...options, rule: { table: 5, priority: 99 } });
    ruled.child.kill("SIGKILL");
    await ruled.ended();
    assert.notDeepEqual(await state(namespace), before);
    await run(namespace, "open");
    assert.deepEqual(await state(namespace), before);
  },
);

systemTest("The close of a persistent device restores its state", NEEDS, async () => {
  await using namespace = await openNamespace();
  await namespace.command("ip", ["tuntap", "add", "keep", "mode", "tun"]);
  await namespace.command("ip", ["addr", "add", "10.9.0.1/24", "dev", "keep"]);
  const before = await state(namespace);
  const address = ["10.9.0.1/24", "10.9.1.1/24"];
  for (const end of ["SIGINT", "SIGKILL"] as const) {
    const scenario = await start(namespace, "echo", {
      name: "keep",
      address,
      mtu: 1300,
      route: "10.20.0.0/16",
    });
    assert.notDeepEqual(await state(namespace), before);
    scenario.child.kill(end);
    await scenario.ended();
    if (end === "SIGKILL") await run(namespace, "open", { name: "other", up: false });
    assert.deepEqual(await state(namespace), before, end);
  }
});

systemTest(
  "A persistent device has no super-packets and partial checksums for the program after Warren",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    await namespace.command("ip", ["tuntap", "add", "keep", "mode", "tun"]);
    await namespace.command("ip", ["addr", "add", "10.9.0.1/24", "dev", "keep"]);
    await namespace.command("ip", ["link", "set", "keep", "up"]);
    const read = () => runModule<Datagram[]>(namespace, PLAIN_READER, ["keep", "10.9.0.2"]);
    const ordinary = new Array<Datagram>(4).fill({ length: 1028, right: true });
    assert.deepEqual(await read(), ordinary);
    for (const end of ["SIGINT", "SIGKILL"] as const) {
      const scenario = await start(namespace, "echo", { name: "keep" });
      scenario.child.kill(end);
      await scenario.ended();
      // A crash leaves the flags, which the next open without offload resets.
      if (end === "SIGKILL") await run(namespace, "open", { name: "keep", linux: { offload: false } });
      assert.deepEqual(await read(), ordinary, end);
    }
  },
);

systemTest("openDevice() attaches to a device prepared for a user without CAP_NET_ADMIN", {
  programs: ["ip", "ping", "setpriv"],
}, async () => {
  await using namespace = await openNamespace();
  await namespace.command("ip", ["tuntap", "add", "mine", "mode", "tun", "user", "65534"]);
  await namespace.command("ip", ["addr", "add", "10.9.0.1/24", "dev", "mine"]);
  await namespace.command("ip", ["link", "set", "mine", "up"]);
  // The dynamic loader and the module cache must be readable for that user, so only the bounding set is dropped.
  const drop = ["--inh-caps=-all", "--bounding-set=-net_admin", "--ambient-caps=-all"];
  const tried = async (options: unknown) => {
    const args = [...drop, Deno.execPath(), "run", "--quiet", "--allow-ffi", fileURLToPath(SCENARIO), "open"];
    const { stdout } = await namespace.command("setpriv", [...args, JSON.stringify(options)]);
    return JSON.parse(stdout) as { name?: string; thrown?: Thrown };
  };
  assert.deepEqual((await tried({ name: "new" })).thrown, {
    name: "PermissionDenied",
    message:
      'Cannot open device "new": EPERM (1): run as root, grant CAP_NET_ADMIN to deno, or prepare the ' +
      "device with `ip tuntap add new mode tun user USER`",
  });
  // Root without the capability is not the owner.
  assert.equal((await tried({ name: "mine" })).thrown?.name, "PermissionDenied");
  await namespace.command("ip", ["tuntap", "del", "mine", "mode", "tun"]);
  await namespace.command("ip", ["tuntap", "add", "mine", "mode", "tun", "user", "0"]);
  await namespace.command("ip", ["addr", "add", "10.9.0.1/24", "dev", "mine"]);
  await namespace.command("ip", ["link", "set", "mine", "up"]);
  assert.equal((await tried({ name: "mine", address: "10.9.0.1/24" })).name, "mine");
  assert.match((await tried({ name: "mine", address: "10.9.9.1/24" })).thrown!.message, /EPERM \(1\)/);
});

systemTest("openDevice() names the fault of a name, address, MTU, route or rule", NEEDS, async () => {
  await using namespace = await openNamespace();
  const wrong: [unknown, string, RegExp][] = [
    [{ name: "a-name-of-16-byt" }, "RangeError", /name must have at most 15 bytes, got 16$/],
    [{ name: "a/b" }, "TypeError", /^Cannot open device "a\/b": name must not be empty, /],
    [{ name: "a b" }, "TypeError", /^Cannot open device "a b"/],
    [{ name: "" }, "TypeError", /^Cannot open device ""/],
    [{ name: ".." }, "TypeError", /^Cannot open device "\.\."/],
    [{ name: "a%s" }, "TypeError", /name must contain "%" only once, in "%d"$/],
    [
      { name: "lo" },
      "DriverError",
      /^Cannot open device "lo": EINVAL \(22\): there is a device of this name that is not a TUN/,
    ],
    [{ address: "10.9.0.1" }, "SyntaxError", /it has no prefix length: write 10\.9\.0\.1\/24$/],
    [{ address: "10.9.0.256/24" }, "SyntaxError", /10\.9\.0\.256/],
    [{ address: "10.9.0.1/33" }, "SyntaxError", /10\.9\.0\.1\/33/],
    [{ address: "fd09::g/64" }, "SyntaxError", /fd09::g/],
    [{ mtu: 67 }, "RangeError", /^Cannot open a device: mtu must be an integer from 68 to 65535, got 67$/],
    [{ mtu: 65_536 }, "RangeError", /mtu must .*, got 65536$/],
    [{ mtu: 1400.5 }, "RangeError", /mtu must .*, got 1400\.5$/],
    [
      { mtu: 1279, address: "fd09::1/64" },
      "RangeError",
      /mtu must be at least 1280 with an IPv6 address, got 1279$/,
    ],
    [{ route: "10.0.0.0/8 over there" }, "SyntaxError", /"over" must be via, metric or table$/],
    [{ route: "10.0.0.0/8 metric" }, "SyntaxError", /"metric" has no value$/],
    [{ route: "10.0.0.0/8 metric x" }, "SyntaxError", /metric must be a number, got "x"$/],
    [{ route: "10.0.0.0/8 via fd09::1" }, "TypeError", /both must be IPv4, or both IPv6$/],
    [
      { route: "10.0.0.1/8" },
      "SyntaxError",
      /10\.0\.0\.1\/8.*10\.0\.0\.0\/8/,
    ],
    [
      { rule: { table: 0 } },
      "RangeError",
      /^Cannot add a rule: table must be an integer from 1 to 4294967295, got 0$/,
    ],
    [
      { rule: { table: 5, from: "10.0.0.0/8", to: "::/0" } },
      "TypeError",
      /from, to and family must be of the same IP version$/,
    ],
    [
      { linux: { txQueueLength: -1 } },
      "RangeError",
      /^Cannot open a device: linux\.txQueueLength must be .*, got -1$/,
    ],
  ];
  for (const [options, name, message] of wrong) {
    const thrown = await opening(namespace, options);
    assert.deepEqual(
      [thrown.name, message.test(thrown.message)],
      [name, true],
      `${JSON.stringify(options)}: ${thrown.message}`,
    );
  }
});

systemTest("openDevice() reports a busy device", NEEDS, async () => {
  await using namespace = await openNamespace();
  const holder = await start(namespace, "echo", { name: "taken" });
  const thrown = await opening(namespace, { name: "taken" });
  assert.deepEqual([thrown.name, thrown.code], ["DriverError", "EBUSY"]);
  assert.match(
    thrown.message,
    /^Cannot open device "taken": EBUSY \(16\): another program has this device open$/,
  );
  holder.child.kill("SIGTERM");
  assert.equal((await holder.ended()).code, 0);
});

systemTest("openDevice() names the remedy without --allow-ffi", NEEDS, async () => {
  await using namespace = await openNamespace();
  const { thrown } = await run<{ thrown: Thrown }>(namespace, "noFfi");
  assert.deepEqual(thrown.name, "NotCapable");
  assert.match(
    thrown.message,
    /^Cannot open the C library: FFI is not allowed: run deno with --allow-ffi, not --allow-ffi=PATH$/,
  );
});

systemTest("Tunnel.run() rejects when its device is removed while it runs", NEEDS, async () => {
  await using namespace = await openNamespace();
  const scenario = await start(namespace, "echo", { name: "w0", address: "10.9.0.1/24" });
  await namespace.command("ip", ["link", "delete", "w0"]);
  const { printed } = await scenario.ended();
  const { thrown } = JSON.parse(printed) as { thrown: Thrown };
  assert.match(thrown.message, /"w0": EBADFD \(77\): the device was removed$/);
});

systemTest("Device.events() reports up, down, a new MTU and gone", NEEDS, async () => {
  await using namespace = await openNamespace();
  const scenario = await start(namespace, "events", { name: "w0", address: "10.9.0.1/24" });
  const steps: [string, string[]][] = [
    ["down", ["link", "set", "w0", "down"]],
    ["mtu", ["link", "set", "w0", "mtu", "1234"]],
    ["up", ["link", "set", "w0", "up"]],
    ["gone", ["link", "delete", "w0"]],
  ];
  for (const [kind, words] of steps) {
    await namespace.command("ip", words);
    await scenario.said(`event ${kind}`);
  }
  const { events } = JSON.parse((await scenario.ended()).printed) as {
    events: { kind: string; mtu: number }[];
  };
  // The kernel sets a device down before it removes it; a read may fail before that message arrives.
  const told = events.map(({ kind, mtu }) => `${kind} ${mtu}`).filter((event) => event !== "down 1234");
  assert.deepEqual(told, ["down 1500", "mtu 1234", "up 1234", "gone 1234"]);
});

systemTest(
  "The watchdog names a stage that never returns, puts rules back and ends the process",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    const before = await state(namespace);
    const options = { address: "10.9.0.1/24", rule: { table: 5 }, watchdog: 500 };
    const scenario = await start(namespace, "hang", options);
    await namespace.command("ping", ["-c", "1", "-W", "0.1", "10.9.0.2"], { check: false });
    const { code, heard } = await scenario.ended();
    assert.equal(code, 70);
    assert.match(heard, /warren: Cannot go on: stage "spin" has not returned for 500 ms: ending the process/);
    assert.deepEqual(await state(namespace), before);
    // The journal is removed with its changes.
    const notes = Array.from(Deno.readDirSync("/run/warren"), ({ name }) => name);
    assert.deepEqual(notes.filter((name) => name.startsWith(`${scenario.child.pid}-`)), []);
  },
);

systemTest("The watchdog finds code outside of the stages that never returns", NEEDS, async () => {
  await using namespace = await openNamespace();
  const scenario = await start(namespace, "hangOutside", { address: "10.9.0.1/24", watchdog: 500 });
  const { code, heard } = await scenario.ended();
  assert.equal(code, 70);
  assert.match(heard, /code outside of its stages has not returned for 500 ms/);
});

systemTest("Ctrl-C ends a script whose stage never returns", NEEDS, async () => {
  await using namespace = await openNamespace();
  const scenario = await start(namespace, "hang", { address: "10.9.0.1/24", watchdog: 60_000 });
  await namespace.command("ping", ["-c", "1", "-W", "0.1", "10.9.0.2"], { check: false });
  scenario.child.kill("SIGINT");
  const { code, heard } = await scenario.ended();
  assert.equal(code, 130);
  assert.match(heard, /Interrupted while stage "spin" does not return/);
});

systemTest("Nothing of these tests is left", NEEDS, async () => {
  const { stdout } = await command("ip", ["netns", "list"]);
  assert.equal(stdout.includes(`warren-${Deno.pid}-`), false);
});
