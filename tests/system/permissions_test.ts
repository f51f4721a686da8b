/** Permissions that Deno asks for on a terminal, and what happens without them. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { systemTest } from "../kit/system.ts";

const SETTINGS = fileURLToPath(new URL("../../deno.json", import.meta.url));
const NEEDS = { root: false, programs: ["bash", "script"] };
const TIMEOUT = 20_000;

/** A script on a device in memory, whose far end is a socket: it needs FFI, and the network for a name. */
const SCRIPT = `import { script } from "@warren/tunnel";
import { MemoryDevice } from "@warren/tunnel/memory";
const [device] = MemoryDevice.pair();
export default script(import.meta, { device, far: "udp://127.0.0.1:4500" }, async (tunnel) => {
  setTimeout(() => tunnel.close(), 100);
  await tunnel.run();
  console.log("it ran");
});`;

/** Runs the script on a terminal, with an answer to each of Deno's prompts; what it printed, and its exit code. */
async function run(
  flags: string,
  answers: string[],
): Promise<{ code: number; shown: string; prompts: number }> {
  const folder = await Deno.makeTempDir({ prefix: "warren-permissions-" });
  try {
    await Deno.writeTextFile(`${folder}/test.ts`, SCRIPT);
    const command = `'${Deno.execPath()}' run --quiet --no-check --config '${SETTINGS}' ${flags}`;
    const child = new Deno.Command("script", {
      args: ["-qefc", command, "/dev/null"],
      cwd: folder,
      env: { NO_COLOR: "1" },
      stdin: "piped",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const timer = setTimeout(() => child.kill("SIGKILL"), TIMEOUT);
    const keys = child.stdin.getWriter();
    let shown = "";
    let prompts = 0;
    for await (const part of child.stdout.pipeThrough(new TextDecoderStream())) {
      shown += part;
      if (shown.split("Allow?").length - 1 === prompts) continue;
      const answer = answers[prompts++] ?? "n";
      // Deno forgets what was typed before its prompt was there.
      await new Promise((resolve) => setTimeout(resolve, 300));
      await keys.write(new TextEncoder().encode(`${answer}\n`));
    }
    await keys.close().catch(() => {});
    clearTimeout(timer);
    return { code: (await child.status).code, shown, prompts };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

systemTest("Deno's prompt for FFI opens the library at y and at A, and is asked once", NEEDS, async () => {
  for (const flags of ["", "--allow-ffi=/lib/libc.so.6"]) {
    for (const answer of ["y", "A"]) {
      const { code, shown, prompts } = await run(`${flags} test.ts`, [answer]);
      assert.equal(prompts, 1, shown);
      assert.match(shown, /it ran/);
      assert.equal(code, 0);
    }
  }
});

systemTest("Deno's prompt for a name's lookup is asked once", NEEDS, async () => {
  const { code, shown, prompts } = await run("--allow-ffi test.ts --far udp://localhost:4500", ["y"]);
  assert.equal(prompts, 1, shown);
  assert.match(shown, /it ran/);
  assert.equal(code, 0);
});

systemTest("A permission that is not granted is one line that says how to grant it", NEEDS, async () => {
  const noFfi =
    /^warren: Cannot open the C library: FFI is not allowed: run deno with --allow-ffi, not --allow-ffi=PATH\r?$/m;
  const ways: [flags: string, answers: string[], prompts: number, message: RegExp][] = [
    ["test.ts", ["n"], 1, noFfi],
    ["--no-prompt test.ts", [], 0, noFfi],
    ["--deny-ffi test.ts", [], 0, noFfi],
    ["--no-prompt --allow-ffi=libc.so.6 test.ts", [], 0, noFfi],
    [
      "--allow-ffi --deny-ffi=/lib/other.so test.ts",
      [],
      0,
      /^warren: Cannot open the C library: with --deny-ffi=PATH, deno finds no system library: run it without\r?$/m,
    ],
    [
      "--allow-ffi test.ts --far udp://localhost:4500",
      ["n"],
      1,
      /^warren: Cannot use localhost: it requires net access: run again with --allow-net\r?$/m,
    ],
  ];
  for (const [flags, answers, expected, message] of ways) {
    const { code, shown, prompts } = await run(flags, answers);
    assert.equal(prompts, expected, flags);
    assert.match(shown, message);
    assert.doesNotMatch(shown, /it ran|^ {4}at /m);
    assert.equal(code, 1);
  }
});
