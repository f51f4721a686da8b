/** The watch on another process's heap, against a process that allocates when it is told to. */

import { equal, ok, rejects } from "node:assert/strict";
import { HeapWatch, WATCHED } from "./heap_watch.ts";

// Implementation
const MEBIBYTE = 1 << 20;
const ARRAYS = 4096;
/** 8 KiB: small ones of V8's heap, 32 MiB together; it collects several times meanwhile. */
const ELEMENTS = 1024;
const PROGRAM = `
  let kept;
  Deno.addSignalListener("SIGUSR1", () => {
    for (let i = 0; i < ${ARRAYS}; i++) kept = new Array(${ELEMENTS}).fill(i + 0.5);
    console.error(kept.length);
  });
  setInterval(() => {}, 1e6);
  console.error("ready");
`;

Deno.test({
  name: "HeapWatch counts what a process allocates, how often V8 collects, and for how long",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const program = await Deno.makeTempFile({ suffix: ".js" });
    try {
      await Deno.writeTextFile(program, PROGRAM);
      await using process = new Deno.Command(Deno.execPath(), {
        args: ["run", "--quiet", "--no-prompt", "--allow-ffi", ...WATCHED, program],
        stdout: "piped",
        stderr: "piped",
      }).spawn();
      const words = process.stderr.getReader();
      await words.read();
      const watch = new HeapWatch(process);
      const before = await watch.look();
      process.kill("SIGUSR1");
      await words.read();
      const after = await watch.look();
      await words.cancel();
      const allocated = (after.allocated - before.allocated) / MEBIBYTE;
      ok(allocated > 28 && allocated < 40, `${allocated} MiB of 32`);
      ok(after.scavenges > before.scavenges, `${after.scavenges} scavenges`);
      ok(after.collections >= after.scavenges, `${after.collections} collections`);
      ok(after.paused > before.paused, `${after.paused} ms`);
    } finally {
      await Deno.remove(program);
    }
  },
});

Deno.test({
  name: "HeapWatch reads all the time, so that what a process writes does not stop it",
  ignore: Deno.build.os !== "linux",
  async fn() {
    await using process = new Deno.Command(Deno.execPath(), {
      args: ["eval", `console.log("x".repeat(${MEBIBYTE})); console.error("done")`],
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const watch = new HeapWatch(process);
    equal((await new Response(process.stderr).text()).trim(), "done");
    await rejects(watch.look());
  },
});
