/** The permissions that scripts have under `warren run`. */

import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { systemTest } from "../kit/system.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const TIMEOUT = 20_000;

/** A script that prints the state of each permission, and whether it may read a file that is not its own. */
const SCRIPT = `import { script } from "@warren/tunnel";
import { MemoryDevice } from "@warren/tunnel/memory";
import { word } from "./part.ts";
const [device] = MemoryDevice.pair();
const state = (name: "ffi" | "net" | "read" | "write" | "run") =>
  name + " " + Deno.permissions.querySync({ name } as Deno.PermissionDescriptor).state;
let shadow = "read";
try { Deno.readTextFileSync("/etc/passwd"); } catch (error) { shadow = (error as Error).name; }
export default script(import.meta, { device }, async () => {
  console.log([word, shadow, ...(["ffi", "net", "read", "write", "run"] as const).map(state)].join(", "));
});`;
const FFI_ONLY = "part, NotCapable, ffi granted, net prompt, read denied, write prompt, run prompt\n";
const ALL = "part, read, ffi granted, net granted, read granted, write granted, run granted\n";

class Folder implements AsyncDisposable {
  readonly path = Deno.makeTempDirSync({ prefix: "warren-run-" });

  constructor(files: Record<string, string>) {
    for (const [name, text] of Object.entries({ "part.ts": `export const word = "part";`, ...files })) {
      Deno.mkdirSync(dirname(join(this.path, name)), { recursive: true });
      Deno.writeTextFileSync(join(this.path, name), text);
    }
  }

  async warren(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", join(ROOT, "runtime/cli/main.ts"), "run", ...args],
      cwd: this.path,
      env: { NO_COLOR: "1" },
      stdin: "null",
    }).output();
    return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

Deno.test("warren run gives a script the permissions in its run line and on the command line", async () => {
  await using folder = new Folder({
    "plain.ts": SCRIPT,
    "ffi.ts": `#!/usr/bin/env -S deno run --allow-ffi\n${SCRIPT}`,
    "net.ts": `#!/usr/bin/env -S deno run --allow-ffi -N\n${SCRIPT}`,
    "all.ts": `#!/usr/bin/env -S deno run -A\n${SCRIPT}`,
    "odd.ts": `#!/usr/bin/env -S deno run --allow-ffi --config=a.json\n${SCRIPT}`,
  });
  const ways: [args: string[], stdout: string, stderr: string][] = [
    [["plain.ts", "-q"], FFI_ONLY, ""],
    [["ffi.ts", "-q"], FFI_ONLY, ""],
    [["net.ts", "-q"], FFI_ONLY.replace("net prompt", "net granted"), ""],
    [["all.ts", "-q"], ALL, ""],
    [["-A", "ffi.ts", "-q"], ALL, ""],
    [["--allow-net", "--allow-run", "ffi.ts", "-q"], FFI_ONLY.replace(/(net|run) prompt/g, "$1 granted"), ""],
    [["--deny-net", "all.ts", "-q"], ALL.replace("net granted", "net denied"), ""],
    [["all.ts"], ALL, "warren: all.ts requests all permissions, and gets them\n"],
    [["odd.ts"], FFI_ONLY, "warren: ignored flags in the first line of odd.ts: --config=a.json\n"],
  ];
  for (const [args, stdout, stderr] of ways) {
    const ran = await folder.warren(...args);
    assert.equal(ran.code, 0, ran.stderr);
    assert.equal(ran.stdout, stdout, args.join(" "));
    assert.ok(ran.stderr.startsWith(stderr), ran.stderr);
  }
});

Deno.test("warren run --dry-run lists the permissions, those that flags bring too", async () => {
  await using folder = new Folder({ "plain.ts": SCRIPT });
  const permissions = async (...args: string[]) =>
    /^permissions (.*)$/m.exec((await folder.warren(...args, "--dry-run")).stdout)?.[1];
  assert.equal(await permissions("plain.ts"), "--allow-ffi");
  assert.equal(await permissions("plain.ts", "--far", "udp://192.0.2.1:4500"), "--allow-ffi");
  assert.equal(
    await permissions("plain.ts", "--far=udp://localhost:4500"),
    "--allow-ffi --allow-net=localhost",
  );
  assert.equal(await permissions("plain.ts", "--far", "ws://[::1]:80/"), "--allow-ffi --allow-net=[::1]:80");
  assert.equal(
    await permissions("plain.ts", "--far", "wss://a.example/x"),
    "--allow-ffi --allow-net=a.example:443",
  );
  const trace = join(await Deno.realPath(folder.path), "t.pcapng");
  assert.equal(
    await permissions("plain.ts", "--capture", "t.pcapng"),
    `--allow-ffi --allow-read=${trace} --allow-write=${trace}`,
  );
  assert.equal(await permissions("plain.ts", "--capture", "-"), "--allow-ffi");
  const comma = await folder.warren("plain.ts", "--capture", "a,b");
  assert.deepEqual([comma.code, comma.stdout], [2, ""], comma.stderr);
  assert.equal((await folder.warren("-A", "plain.ts", "--capture", "a,b", "--dry-run")).code, 0);
  // Without a value, it names no file: not the working folder.
  assert.equal(await permissions("plain.ts", "--capture="), "--allow-ffi");
  assert.match(
    await permissions("plain.ts", "--profile") ?? "",
    /^--allow-ffi --allow-sys --allow-write=.*\.cpuprofile$/,
  );
});

Deno.test("warren run leaves the words behind -- to the script: they grant nothing, and stay as they are", async () => {
  await using folder = new Folder({
    "words.ts": SCRIPT.replace("async () => {", "async (_, { args }) => {\n  console.log(args.join(' '));"),
  });
  const words = ["--profile", "--far", "ws://192.0.2.1/", "--capture", "x.pcapng", "--dry-run"];
  const { code, stdout, stderr } = await folder.warren("words.ts", "-q", "--", ...words);
  assert.equal(code, 0, stderr);
  assert.equal(stdout, `${words.join(" ")}\n${FFI_ONLY}`);
});

Deno.test("warren run takes a script from a URL anew each time, with FFI alone, and leaves deno.lock as it is", async () => {
  const files = new Map([["/my/s.ts", `#!/usr/bin/env -S deno run -A\n${SCRIPT}`], [
    "/my/part.ts",
    `export const word = "part";`,
  ]]);
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    const text = files.get(new URL(request.url).pathname);
    const headers = { "content-type": "application/typescript", "cache-control": "max-age=3600" };
    return text === undefined ? new Response("", { status: 404 }) : new Response(text, { headers });
  });
  const url = `http://127.0.0.1:${server.addr.port}/my/s.ts`;
  const before = await Deno.readTextFile(join(ROOT, "deno.lock"));
  await using folder = new Folder({});
  for (const word of ["part", "changed", "again"]) {
    files.set("/my/part.ts", `export const word = "${word}";`);
    const ran = await folder.warren(url, "-q");
    assert.equal(ran.code, 0, ran.stderr);
    assert.equal(ran.stdout, FFI_ONLY.replace("part", word));
  }
  files.set("/my/s.ts", SCRIPT.replace(/console\.log/, "console.log('edited'); console.log"));
  const granted = await folder.warren("--allow-net", url, "-q");
  assert.equal(
    granted.stdout,
    `edited\n${FFI_ONLY.replace("part", "again").replace("net prompt", "net granted")}`,
  );
  assert.equal(await Deno.readTextFile(join(ROOT, "deno.lock")), before);
  assert.match(
    (await folder.warren(`${url}x`)).stderr,
    /^warren: Cannot run "http.*s\.tsx": Module not found "http[^ ]*"\.\n$/m,
  );
});

Deno.test("deno.lock has no modules of scripts", async () => {
  const lock = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.lock"))) as Record<string, unknown>;
  assert.deepEqual(Object.keys(lock).sort(), ["npm", "specifiers", "version", "workspace"]);
});

systemTest("warren run leaves no process behind, by whichever signal it ends", { root: false }, async () => {
  await using folder = new Folder({
    "wait.ts": SCRIPT.replace("{ device }, async () => {", "{ device }, async (tunnel) => {").replace(
      /\n\}\);$/,
      "\n  console.log(Deno.pid); await tunnel.run();\n});",
    ),
  });
  for (const [signal, code] of [["SIGINT", 0], ["SIGTERM", 0], ["SIGHUP", 0], ["SIGKILL", 137]] as const) {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", join(ROOT, "runtime/cli/main.ts"), "run", "wait.ts", "-q"],
      cwd: folder.path,
      stdin: "null",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const timer = setTimeout(() => child.kill("SIGKILL"), TIMEOUT);
    let printed = "";
    for await (const part of child.stdout.pipeThrough(new TextDecoderStream())) {
      printed += part;
      if (!/\n\d+\n$/.test(printed)) continue;
      // It is the process that was started, so no other one can stay.
      assert.equal(Number(printed.trim().split("\n").at(-1)), child.pid);
      child.kill(signal);
    }
    assert.equal((await child.status).code, code, signal);
    clearTimeout(timer);
  }
});

Deno.test("warren run hands on Deno's own flags, those before the script and those before Warren", async () => {
  const script = SCRIPT.replace("[word, shadow,", "[word, typeof (globalThis as { gc?: unknown }).gc,");
  await using folder = new Folder({ "gc.ts": script });
  const flag = "--v8-flags=--expose-gc";
  const before = await folder.warren(flag, "gc.ts", "-q");
  assert.match(before.stdout, /^part, function, /, before.stderr);
  if (Deno.build.os !== "linux") return;
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", flag, join(ROOT, "runtime/cli/main.ts"), "run", "gc.ts", "-q"],
    cwd: folder.path,
    stdin: "null",
  }).output();
  assert.match(new TextDecoder().decode(stdout), /^part, function, /);
});
