/** Scripts on devices in memory. */

import assert from "node:assert/strict";
import { mock } from "node:test";
import { setImmediate } from "node:timers";
import { MemoryDevice } from "../../../driver/memory.ts";
import { script, type Tunnel, type TunnelOptions } from "../../../runtime/mod.ts";
import {
  isScript,
  runScript,
  type TunnelScript,
  type TunnelsScript,
} from "../../../runtime/script/script.ts";

/** What these tests' options have in common: no signals and no thread, for which they lack permissions. */
function quiet(): TunnelOptions {
  return { device: MemoryDevice.pair()[0], signals: false, watchdog: 0 };
}

function meta(main: boolean, url = "data:text/javascript,"): ImportMeta {
  return { main, url } as ImportMeta;
}

/** Lets everything run that waits for nothing outside. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Runs a script, and returns its exit code and what it printed. */
async function run(made: TunnelScript | TunnelsScript, args: string[] = []): Promise<{
  code: number;
  out: string[];
  err: string[];
}> {
  const out = mock.method(console, "log", () => {});
  const err = mock.method(console, "error", () => {});
  try {
    const code = await runScript(made, args, "warren run", "my.ts");
    const texts = (calls: readonly { arguments: unknown[] }[]) =>
      calls.map(({ arguments: [text] }) => String(text));
    return { code, out: texts(out.mock.calls), err: texts(err.mock.calls) };
  } finally {
    out.mock.restore();
    err.mock.restore();
  }
}

/** Has `script()` end the "process" of a test; gives the exit code, once there is one. */
function catchExit(): { code: Promise<number>; [Symbol.dispose](): void } {
  const { promise, resolve } = Promise.withResolvers<number>();
  const exit = mock.method(Deno, "exit", ((code: number) => resolve(code)) as typeof Deno.exit);
  const error = mock.method(console, "error", () => {});
  return {
    code: promise,
    [Symbol.dispose](): void {
      exit.mock.restore();
      error.mock.restore();
    },
  };
}

Deno.test("script() returns its options and main, and runs nothing when its module was imported", async () => {
  const options = quiet();
  const main = mock.fn();
  const made = script(meta(false), options, main);
  assert.equal(made.options, options);
  assert.ok(isScript(made));
  await turn();
  assert.equal(main.mock.callCount(), 0);
});

Deno.test("script() runs its main when its module was started, and ends the process when that returns", async () => {
  using exit = catchExit();
  const names: string[] = [];
  script(meta(true), quiet(), async (tunnel) => {
    names.push(tunnel.name);
    await turn();
  });
  assert.equal(await exit.code, 0);
  assert.deepEqual(names, ["memory"]);
});

Deno.test("script() waits until its module has been evaluated, with its top-level await", async () => {
  using exit = catchExit();
  const { promise, resolve } = Promise.withResolvers<void>();
  Object.assign(globalThis, { warrenGate: promise });
  const main = mock.fn(async () => await turn());
  script(meta(true, "data:text/javascript,await globalThis.warrenGate"), quiet(), main);
  // By when a module that waits for nothing has been evaluated.
  await import("data:text/javascript,export const other = 1");
  await turn();
  assert.equal(main.mock.callCount(), 0);
  resolve();
  assert.equal(await exit.code, 0);
  assert.equal(main.mock.callCount(), 1);
});

Deno.test("script() runs nothing when its module's evaluation failed", async () => {
  using _exit = catchExit();
  const main = mock.fn();
  const url = "data:text/javascript,throw new Error('no')";
  script(meta(true, url), quiet(), main);
  await assert.rejects(import(url));
  await turn();
  assert.equal(main.mock.callCount(), 0);
});

Deno.test("isScript() accepts results of script(), and nothing else", () => {
  assert.ok(isScript(script(meta(false), {}, () => {})));
  for (
    const other of [undefined, null, 1, "", {}, () => {}, { options: {} }, { main: () => {}, options: null }]
  ) {
    assert.ok(!isScript(other));
  }
});

Deno.test("runScript() opens the tunnel, and closes it when main returns", async () => {
  let seen: Tunnel | undefined;
  const { code, err } = await run(script(meta(false), quiet(), async (tunnel) => {
    seen = tunnel;
    await turn();
  }));
  assert.equal(code, 0);
  await seen!.closed;
  assert.match(err[0]!, /^memory is open: MTU 1500\. Press Ctrl-C to stop\.$/);
  assert.match(
    err.at(-1)!,
    /^memory is closed: it never ran; from this machine no packets; to this machine /,
  );
});

Deno.test("runScript() gives several tunnels by their names", async () => {
  const made = script(meta(false), { tunnels: { left: quiet(), right: quiet() } }, ({ left, right }) => {
    assert.ok(left !== right);
    return Promise.reject(new Error(`${left.name} ${right.name}`));
  });
  const { code, err } = await run(made, ["-q"]);
  assert.equal(code, 1);
  assert.match(err[0]!, /^warren: Error: memory memory\n {4}at .*script_test\.ts/);
});

Deno.test("runScript() prints nothing with --quiet", async () => {
  assert.deepEqual(await run(script(meta(false), quiet(), async () => await turn()), ["--quiet"]), {
    code: 0,
    out: [],
    err: [],
  });
});

Deno.test("runScript() opens nothing for --help, --dry-run and a wrong flag", async () => {
  const main = mock.fn();
  const made = script(meta(false), { address: "10.9.0.1/24" }, main);
  const help = await run(made, ["--help"]);
  assert.equal(help.code, 0);
  assert.match(help.out[0]!, /^Usage: warren run my\.ts \[flags\]/);
  const dry = await run(made, ["--dry-run", "--mtu", "1400"]);
  assert.deepEqual(dry, { code: 0, out: ["device tun%d, address 10.9.0.1/24, MTU 1400"], err: [] });
  const wrong = await run(made, ["--mtuu"]);
  assert.equal(wrong.code, 2);
  assert.match(wrong.err[0]!, /did you mean --mtu\?\nTry: warren run my\.ts --help$/);
  assert.equal(main.mock.callCount(), 0);
});

Deno.test("runScript() returns 1 and names the stage when a handler throws", async () => {
  const [device, outside] = MemoryDevice.pair();
  const made = script(meta(false), { ...quiet(), device }, async (tunnel) => {
    const run = tunnel.run(function broken(): never {
      throw new Error("no such thing");
    });
    assert.equal(tunnel.send(Uint8Array.of(1)), true);
    await run;
  });
  const { code, err } = await run(made, ["-q"]);
  assert.equal(code, 1);
  assert.equal(err.length, 1);
  assert.match(err[0]!, /stage "broken" threw: no such thing\n {4}at .*script_test\.ts/);
  outside.close();
});

Deno.test("runScript() closes the tunnels that are open when one cannot be opened", async () => {
  const first = quiet();
  const far = () => {
    throw new TypeError("nobody there");
  };
  const made = script(meta(false), { tunnels: { first, second: { ...quiet(), far } } }, () => {});
  const { code, err } = await run(made);
  assert.equal(code, 1);
  assert.match(err.at(-1)!, /nobody there/);
  assert.ok(err.some((line) => line.startsWith("memory is closed")));
});

const FLAGS = { peers: { type: "number", default: 2 }, key: { type: "string", required: true } } as const;

Deno.test("script() gives main its flags, typed, and the words behind --, with one tunnel and with several", async () => {
  const seen: unknown[] = [];
  const one = script(meta(false), { ...quiet(), flags: FLAGS }, async (tunnel, { flags, args }) => {
    const peers: number = flags.peers;
    const key: string = flags.key;
    seen.push(tunnel.name, peers, key, args);
    await turn();
  });
  assert.deepEqual(await run(one, ["-q", "--key", "k", "--", "a"]), { code: 0, out: [], err: [] });
  const several = script(
    meta(false),
    {
      tunnels: { left: quiet() },
      flags: { list: { type: "list" }, on: { type: "boolean" }, text: { type: "string" } },
    },
    async ({ left }, { flags: { list, on, text } }) => {
      const types: [readonly string[], boolean, string | undefined] = [list, on, text];
      seen.push(left.name, ...types);
      await turn();
    },
  );
  assert.deepEqual(await run(several, ["-q", "--on", "--list", "x"]), { code: 0, out: [], err: [] });
  assert.deepEqual(seen, ["memory", 2, "k", ["a"], "memory", ["x"], true, undefined]);
  assert.match((await run(one)).err[0]!, /^warren: --key is missing\nTry: warren run my\.ts --help$/);
  assert.match((await run(one, ["--help"])).out[0]!, /^ {2}--key TEXT +\(required\)$/m);
});

Deno.test("script() completes the flags of a main that another program calls", async () => {
  const made = script(meta(false), { ...quiet(), flags: FLAGS }, (_, { flags, args }) => {
    throw new Error(`${flags.peers} ${flags.key} ${args.length}`);
  });
  const tunnel = {} as Tunnel;
  assert.throws(() => made.main(tunnel, { flags: { key: "k" } }), { message: "2 k 0" });
  assert.throws(() => made.main(tunnel), { name: "TypeError", message: /flag "key" is missing$/ });
  await turn();
});

Deno.test("script() refuses a flag that every script has", () => {
  const flags = { mtu: { type: "number" } } as const;
  assert.throws(() => script(meta(false), { ...quiet(), flags }, () => {}), {
    name: "TypeError",
    message: /--mtu/,
  });
});

Deno.test("script() states the rule for arguments of the wrong type, before a device is opened", () => {
  const refuses = (options: unknown, message: RegExp, main: unknown = () => {}) =>
    assert.throws(() => script(meta(false), options as never, main as never), { name: "TypeError", message });
  refuses(5, /^Cannot create a script: options must be an object, got 5$/);
  refuses(quiet(), /^Cannot create a script: main must be a function, got "main"$/, "main");
  refuses({ flags: 5 }, /^Cannot create a script: flags must be an object, got 5$/);
  refuses({ tunnels: 5 }, /^Cannot create a script: tunnels must be an object, got 5$/);
  refuses({ tunnels: {} }, /^Cannot create a script: tunnels must have at least one tunnel$/);
  refuses({ tunnels: { left: 5 } }, /^Cannot create a script: tunnels.left must be an object, got 5$/);
  for (const name of ["", "a b", "a.b", "a=b", "-a", "constructor", "__proto__"]) {
    refuses(
      { tunnels: { [name]: {} } },
      /^Cannot create a script: the name of a tunnel must have no spaces, /,
    );
  }
});

Deno.test("runScript() refuses a main that returns without running a tunnel, and takes one that waited", async () => {
  for (
    const made of [
      script(meta(false), quiet(), () => {}),
      script(meta(false), { tunnels: { left: quiet(), right: quiet() } }, () => {}),
    ]
  ) {
    const { code, err } = await run(made);
    assert.equal(code, 1);
    assert.match(
      err.at(-1)!,
      /^warren: Cannot run the script: main returned without running a tunnel: return tunnel\.run\(\)/,
    );
  }
  const waited = script(meta(false), quiet(), async () => await turn());
  assert.equal((await run(waited)).code, 0);
});
