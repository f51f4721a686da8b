/** The watchdog's thread: whom it lets live, whom it ends, and whose Ctrl-C is whose. */

import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";
import { MemoryDevice } from "../../driver/memory.ts";
import { openTunnel, type TunnelOptions } from "../../runtime/mod.ts";
import { systemTest } from "../kit/system.ts";

const NEEDS = { root: false };
const SCENARIO = new URL("./watchdog_scenario.ts", import.meta.url);

/** How a process ended. */
interface End {
  readonly code: number;
  readonly signal: Deno.Signal | null;
  readonly heard: string;
}

/** The watchdog's thread takes its listener along when it ends, which is a moment after its tunnel (milliseconds). */
const AGAIN = 100;

/** Runs a scenario to its end; with a signal, that is sent when it says that it is ready, and again until it ends. */
async function end(mode: string, options: TunnelOptions, signal?: Deno.Signal): Promise<End> {
  await using child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "--no-prompt",
      "--allow-ffi",
      fileURLToPath(SCENARIO),
      mode,
      JSON.stringify(options),
    ],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const complaint = new Response(child.stderr).text();
  let said = "";
  let again: ReturnType<typeof setInterval> | undefined;
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    const wasReady = said.includes("ready");
    said += text;
    if (signal === undefined || wasReady || !said.includes("ready")) continue;
    child.kill(signal);
    again = setInterval(() => child.kill(signal), AGAIN);
    child.status.then(() => clearInterval(again));
  }
  const status = await child.status;
  clearInterval(again);
  return { code: status.code, signal: status.signal, heard: await complaint };
}

systemTest("watchdog: 300 lets a process live that has no packets", NEEDS, async () => {
  assert.deepEqual(await end("idle", { watchdog: 300 }), { code: 0, signal: null, heard: "" });
});

systemTest("watchdog: 300 ends a process whose handler does not return, and names it", NEEDS, async () => {
  for (const signals of [true, false]) {
    const { code, heard } = await end("hang", { watchdog: 300, signals });
    assert.notEqual(code, 0);
    assert.match(
      heard,
      /^warren: Cannot go on: stage "spin" has not returned for 300 ms: ending the process$/m,
    );
  }
});

systemTest("watchdog below 0, in fractions or no number at all is a RangeError", NEEDS, async () => {
  for (const watchdog of [-1, -0.5, 0.5, 1500.5, NaN, Infinity, -Infinity]) {
    const [device, outside] = MemoryDevice.pair();
    const error = new RegExp(
      `^RangeError: Cannot open a tunnel: watchdog must be an integer from 0 to 2147483647, got ${watchdog}$`,
    );
    await assert.rejects(openTunnel({ device, signals: false, watchdog }), error);
    outside.close();
  }
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  const name = signal === "SIGINT" ? "Ctrl-C" : signal;
  systemTest(`signals: false leaves ${name} its default action`, NEEDS, async () => {
    for (const watchdog of [0, 300, 5000]) {
      const { signal: by, heard } = await end("running", { watchdog, signals: false }, signal);
      assert.deepEqual([by, heard], [signal, ""], `watchdog ${watchdog}`);
    }
  });

  systemTest(`${name} has its default action again when every tunnel is closed`, NEEDS, async () => {
    for (const watchdog of [0, 300]) {
      const { signal: by, heard } = await end("closed", { watchdog }, signal);
      assert.deepEqual([by, heard], [signal, ""], `watchdog ${watchdog}`);
    }
  });

  systemTest(`${name} ends a tunnel with and without a watchdog`, NEEDS, async () => {
    for (const watchdog of [0, 300]) {
      const ended = await end("running", { watchdog }, signal);
      assert.deepEqual(ended, { code: 0, signal: null, heard: "" }, `watchdog ${watchdog}`);
    }
  });
}
