/** Scripts whose output is not read: their packets go on, and they end as they do with a reader. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { systemTest } from "../kit/system.ts";

const SETTINGS = fileURLToPath(new URL("../../deno.json", import.meta.url));
const CLI = fileURLToPath(new URL("../../runtime/cli/main.ts", import.meta.url));
/** How often a handler prints, and how long such a line is: more than a pipe holds, within a second. */
const PACKETS = 10_000;
const LINE = 100;
/** Longer than an end whose reader is stalled takes on a busy machine (milliseconds). */
const TIMEOUT = 20_000;
const CTRL_S = "\x13";
const CTRL_Q = "\x11";
const NEEDS = { root: false, programs: ["bash", "script"] };

/** A folder with a script, removed after the test. */
class Folder implements AsyncDisposable {
  readonly path = Deno.makeTempDirSync({ prefix: "warren-output-" });

  constructor(script: string) {
    Deno.writeTextFileSync(`${this.path}/test.ts`, script);
  }

  /** A command that runs the script. */
  command(...flags: string[]): string {
    return `exec '${Deno.execPath()}' run -A --quiet --no-check --config '${SETTINGS}' test.ts ${
      flags.join(" ")
    }`;
  }

  /** Starts a shell with a command, here. */
  start(command: string, streams: Partial<Deno.CommandOptions> = {}): Deno.ChildProcess {
    return new Deno.Command("bash", {
      args: ["-c", command],
      cwd: this.path,
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "null",
      stderr: "null",
      ...streams,
    }).spawn();
  }

  /** The packets that the script had handled before it ended. */
  async packets(): Promise<number> {
    return Number(await Deno.readTextFile(`${this.path}/packets`));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

/** A script whose handler prints a line for each of 10,000 packets a second, and which ends after so many packets. */
function busyScript(print: string, packets = PACKETS): string {
  return `import { script, Verdict } from "@warren/tunnel";
    import { MemoryDevice } from "@warren/tunnel/memory";
    const [device, far] = MemoryDevice.pair();
    const line = "x".repeat(${LINE});
    const tunnels = { busy: { device }, source: { device: far } };
    export default script(import.meta, { tunnels }, async ({ busy, source }) => {
      let packets = 0;
      const { promise: handled, resolve } = Promise.withResolvers<void>();
      const running = [source.run(() => Verdict.Pass), busy.run(() => {
        ${print}
        if (packets < ${packets} && ++packets === ${packets}) resolve();
        return Verdict.Drop;
      })];
      const timer = setInterval(() => {
        for (let i = 0; i < 20; i++) source.send(Uint8Array.of(0x45, 0, 0, 20, ...new Uint8Array(16)));
      }, 2);
      await handled;
      clearInterval(timer);
      await Deno.writeTextFile("packets", String(packets));
      busy.close();
      source.close();
      await Promise.all(running);
    });`;
}

/** How a process ended; one that does not is killed, and fails the test. */
async function ended(child: Deno.ChildProcess): Promise<number> {
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    child.kill("SIGKILL");
  }, TIMEOUT);
  const { code } = await child.status;
  clearTimeout(timer);
  assert.ok(!isLate, `it has not ended within ${TIMEOUT} ms`);
  return code;
}

/** Tries several things at once. */
async function each<Thing>(
  things: readonly Thing[],
  attempt: (thing: Thing) => Promise<void>,
): Promise<void> {
  await Promise.all(things.map(attempt));
}

async function text(stream: ReadableStream<Uint8Array>): Promise<string> {
  return await new Response(stream).text();
}

systemTest(
  "A script that prints 10,000 lines a second into a pipe without a reader runs on and ends",
  NEEDS,
  async () => {
    await each(["console.log(line);", "console.error(line);", "console.table([line]);"], async (print) => {
      await using folder = new Folder(busyScript(print));
      const child = folder.start(folder.command(), { stdout: "piped", stderr: "piped" });
      assert.equal(await ended(child), 0, print);
      assert.equal(await folder.packets(), PACKETS);
      await child.stdout.cancel();
      await child.stderr.cancel();
    });
  },
);

systemTest(
  "A script whose reader has ended, or whose disk is full, goes on and ends as with a reader",
  NEEDS,
  async () => {
    const shells = ["> >(true) 2> >(true)", "> /dev/full 2>&1", ">&- 2>&- <&-", "2>&1 | head -n 1"];
    await each(shells, async (streams) => {
      await using folder = new Folder(busyScript("console.log(line); console.error(line);", 2000));
      const shell = `set -o pipefail; (${folder.command()}) ${streams}`;
      assert.equal(await ended(folder.start(shell)), 0, streams);
      assert.equal(await folder.packets(), 2000, streams);
    });
  },
);

systemTest(
  "Warren's commands end with the same exit code whether their output is read or not",
  NEEDS,
  async () => {
    await using folder = new Folder("");
    const warren = `exec '${Deno.execPath()}' run -A --quiet '${CLI}'`;
    for (
      const [flags, code] of [["--help", 0], ["run --help", 0], ["run missing.ts", 1], [
        "nonsense",
        2,
      ]] as const
    ) {
      for (const streams of ["> /dev/full 2>&1", ">&- 2>&-", "> >(true) 2> >(true)"]) {
        assert.equal(
          await ended(folder.start(`(${warren} ${flags}) ${streams}`)),
          code,
          `${flags} ${streams}`,
        );
      }
    }
  },
);

systemTest(
  "A reader that keeps up gets every line, in order, and those before Deno.exit()",
  NEEDS,
  async () => {
    const lines = 200_000;
    for (const [end, code] of [["", 0], ["Deno.exit(7);", 7], [`throw new Error("wrong");`, 1]] as const) {
      await using folder = new Folder(`import { script } from "@warren/tunnel";
      import { MemoryDevice } from "@warren/tunnel/memory";
      const [device] = MemoryDevice.pair();
      export default script(import.meta, { device }, async () => {
        for (let i = 0; i < ${lines}; i++) console.log("line %d of a text", i);
        await Promise.resolve();
        ${end}
      });`);
      const child = folder.start(folder.command(), { stdout: "piped" });
      const read = await text(child.stdout);
      assert.equal(await ended(child), code);
      assert.equal(read, Array.from({ length: lines }, (_, i) => `line ${i} of a text\n`).join(""), end);
    }
  },
);

systemTest(
  "A stopped terminal holds neither packets nor the end, and shows the newest when it goes on",
  NEEDS,
  async () => {
    await each(["", "> /dev/null"], async (streams) => {
      await using folder = new Folder(busyScript("console.log(line);", 2 * PACKETS));
      const child = folder.start(
        `exec script -qefc "${folder.command().replaceAll('"', '\\"')} ${streams}" /dev/null`,
        {
          stdin: "piped",
          stdout: "piped",
        },
      );
      const keys = child.stdin.getWriter();
      const key = (text: string) => keys.write(new TextEncoder().encode(text));
      let shown = "";
      let hasStopped = false;
      const reading = child.stdout.pipeThrough(new TextDecoderStream()).pipeTo(
        new WritableStream({
          async write(text) {
            shown += text;
            if (hasStopped || !/source is open|memory-far is open/.test(shown)) return;
            hasStopped = true;
            await key(CTRL_S);
          },
        }),
      );
      // It runs for two seconds; nothing is read meanwhile.
      await appears(`${folder.path}/packets`);
      assert.equal(await folder.packets(), 2 * PACKETS);
      assert.ok(hasStopped);
      await wait(100);
      await key(CTRL_Q).catch(() => {});
      assert.equal(await ended(child), 0);
      await keys.close().catch(() => {});
      await reading;
    });
  },
);

systemTest("A script whose terminal vanishes ends in order", NEEDS, async () => {
  await using folder = new Folder(`import { script, Verdict } from "@warren/tunnel";
    import { MemoryDevice } from "@warren/tunnel/memory";
    const [device] = MemoryDevice.pair();
    export default script(import.meta, { device }, async (tunnel) => {
      setInterval(() => console.log("still here"), 10);
      await tunnel.run(() => Verdict.Drop);
      console.error("still here");
      await new Promise((resolve) => setTimeout(resolve, 100));
      await Deno.writeTextFile("packets", "0");
    });`);
  const command = folder.command().replaceAll('"', '\\"');
  const terminal = folder.start(`exec script -qefc "${command}" /dev/null`, { stdout: "piped" });
  let shown = "";
  for await (const part of terminal.stdout.pipeThrough(new TextDecoderStream())) {
    shown += part;
    if (shown.includes("is open") && shown.includes("still here")) break;
  }
  terminal.kill("SIGKILL");
  await terminal.status;
  assert.ok(await appears(`${folder.path}/packets`));
});

systemTest(
  "A script that throws outside of main ends with 1 while its output is not read",
  NEEDS,
  async () => {
    for (const wrong of [`throw new Error("wrong");`, `Promise.reject(new Error("wrong"));`]) {
      await using folder = new Folder(`import { script } from "@warren/tunnel";
      import { MemoryDevice } from "@warren/tunnel/memory";
      const [device] = MemoryDevice.pair();
      export default script(import.meta, { device }, async (tunnel) => {
        console.error("x".repeat(1_000_000));
        setTimeout(() => { ${wrong} }, 300);
        await tunnel.run();
      });`);
      const child = folder.start(folder.command(), { stderr: "piped" });
      assert.equal(await ended(child), 1);
      await child.stderr.cancel();
    }
  },
);

systemTest("The watchdog ends a script that hangs while its output is not read", NEEDS, async () => {
  await using folder = new Folder(`import { script, Verdict } from "@warren/tunnel";
    import { MemoryDevice } from "@warren/tunnel/memory";
    const [device] = MemoryDevice.pair();
    export default script(import.meta, { device, watchdog: 500 }, async (tunnel) => {
      const running = tunnel.run(() => Verdict.Drop);
      await new Promise((resolve) => setTimeout(resolve, 300));
      console.error("x".repeat(1_000_000));
      for (;;);
      await running;
    });`);
  const child = folder.start(folder.command(), { stderr: "piped" });
  // A device in memory has nothing that the watchdog would put back before it kills.
  assert.equal(await ended(child), 137);
  await child.stderr.cancel();
});

/** Waits for a file. */
async function appears(path: string): Promise<boolean> {
  for (const deadline = Date.now() + TIMEOUT; Date.now() < deadline; await wait(50)) {
    if (await Deno.stat(path).then(({ size }) => size > 0, () => false)) return true;
  }
  return false;
}

async function wait(milliseconds: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, milliseconds));
}
