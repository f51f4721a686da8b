/** Signals: they end a script at every step in bounded time, with everything put back, unless they were ignored. */

import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";
import { link, type Namespace, openNamespace, systemTest } from "../kit/system.ts";

const NEEDS = { programs: ["ip"] };
const SETTINGS = fileURLToPath(new URL("../../deno.json", import.meta.url));
/** How long an end may take here, where several tests share a processor (milliseconds). */
const END_LIMIT = 5000;
/** A device that was made beforehand: what is set on it has to be put back. */
const PREPARED = `name: "keep", mtu: 1400, address: "10.9.0.2/24", route: "10.20.0.0/16",
  rule: { table: 77, from: "10.9.0.0/24" }`;

/** How a script ended. */
interface Ended {
  readonly code: number;
  readonly said: string;
  /** From the first signal on (milliseconds). */
  readonly took: number;
}

/** Runs a script's text; with each `ready` that it prints, it gets the next signal. */
async function run(
  namespace: Namespace,
  text: string,
  signals: Deno.Signal[],
  prelude: string[] = [],
  flags: string[] = [],
): Promise<Ended> {
  const folder = await Deno.makeTempDir({ prefix: "warren-interrupt-" });
  try {
    const path = `${folder}/test.ts`;
    await Deno.writeTextFile(path, `import { openTunnel, script, Verdict } from "@warren/tunnel";\n${text}`);
    const args = ["run", "--quiet", "--no-check", "--allow-ffi", "--allow-net", "--config", SETTINGS, path];
    const [program, ...rest] = [...prelude, Deno.execPath(), ...args, ...flags];
    const child = namespace.spawn(program!, rest);
    const errors = new Response(child.stderr).text();
    let first = 0;
    for await (const said of child.stdout.pipeThrough(new TextDecoderStream())) {
      for (const _ of said.matchAll(/ready/g)) {
        const signal = signals.shift();
        first ||= performance.now();
        if (signal !== undefined) child.kill(signal);
      }
    }
    const { code } = await child.status;
    return { code, said: await errors, took: performance.now() - first };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** A namespace with a prepared device, and what is so there. */
async function openPlace(): Promise<{ namespace: Namespace; state: () => Promise<unknown> }> {
  const namespace = await openNamespace();
  await namespace.command("ip", ["tuntap", "add", "keep", "mode", "tun"]);
  const state = async () => {
    const [device] = await namespace.ip<{ mtu: number; flags: string[] }>("link", "show", "keep");
    const addresses = await namespace.ip<{ addr_info?: unknown[] }>("addr", "show", "dev", "keep");
    const rules = await namespace.ip("rule");
    const routes = await namespace.ip("route");
    return [device!.mtu, device!.flags.includes("UP"), addresses[0]?.addr_info, rules, routes];
  };
  return { namespace, state };
}

/** Steps of a start that wait, each with what makes it. */
const STEPS: Record<string, string> = {
  "a far end's opener": `
    const far = () => { console.log("ready"); return new Promise<never>(() => setInterval(() => {}, 1000)); };
    export default script(import.meta, { ${PREPARED}, far }, (tunnel) => tunnel.run());`,
  "a WebSocket's handshake": `
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 8080 });
    listener.accept().then(() => console.log("ready"));
    export default script(import.meta, { ${PREPARED}, far: "ws://127.0.0.1:8080/" }, (tunnel) => tunnel.run());`,
  "a name": `
    setTimeout(() => console.log("ready"), 300);
    export default script(import.meta, { ${PREPARED}, far: "udp://vpn.example:4500" }, (tunnel) => tunnel.run());`,
  "the second of two tunnels": `
    const far = () => { console.log("ready"); return new Promise<never>(() => setInterval(() => {}, 1000)); };
    const tunnels = { first: { ${PREPARED} }, second: { name: "other", far } };
    export default script(import.meta, { tunnels }, () => {});`,
  "main's own code": `
    export default script(import.meta, { ${PREPARED} }, async (tunnel) => {
      const run = tunnel.run();
      console.log("ready");
      await run;
    });`,
  "main's own code, before run()": `
    export default script(import.meta, { ${PREPARED} }, async () => {
      console.log("ready");
      await new Promise<never>(() => setInterval(() => {}, 1000));
    });`,
};

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  systemTest(
    `${signal} ends a script at every step of its start, and everything is put back`,
    NEEDS,
    async () => {
      const { namespace, state } = await openPlace();
      await using _namespace = namespace;
      await using far = await openNamespace();
      // A name server that never answers.
      await link({ namespace, name: "eth0", addresses: ["198.51.100.1/24"] }, {
        namespace: far,
        name: "eth0",
      });
      const settings = `/etc/netns/${namespace.name}`;
      await Deno.mkdir(settings, { recursive: true });
      try {
        await Deno.writeTextFile(`${settings}/resolv.conf`, "nameserver 198.51.100.53\n");
        const before = await state();
        for (const [step, text] of Object.entries(STEPS)) {
          const { code, said, took } = await run(namespace, text, [signal], [], ["--quiet"]);
          assert.equal(code, 0, `${step}: ${said}`);
          assert.ok(took < END_LIMIT, `${step}: ${took} ms`);
          assert.deepEqual(await state(), before, step);
        }
      } finally {
        await Deno.remove(settings, { recursive: true });
        // Another test may have its own there.
        await Deno.remove("/etc/netns").catch(() => {});
      }
    },
  );
}

systemTest("A script with two workers ends while one loads", NEEDS, async () => {
  const { namespace, state } = await openPlace();
  await using _namespace = namespace;
  const before = await state();
  const text = `
    if (globalThis.constructor.name !== "Window") await new Promise<never>(() => setInterval(() => {}, 1000));
    setTimeout(() => console.log("ready"), 1000);
    export default script(import.meta, { address: "10.9.0.2/24", rule: { table: 77 } }, (tunnel) => tunnel.run());`;
  const { code, said, took } = await run(namespace, text, ["SIGINT"], [], ["--workers", "2", "--quiet"]);
  assert.equal(code, 0, said);
  assert.ok(took < END_LIMIT, `${took} ms`);
  assert.deepEqual(await state(), before);
});

systemTest("A second SIGINT ends a script at once, with everything put back", NEEDS, async () => {
  const { namespace, state } = await openPlace();
  await using _namespace = namespace;
  const before = await state();
  const text = `
    export default script(import.meta, { ${PREPARED} }, async (tunnel) => {
      const run = tunnel.run();
      console.log("ready");
      await run;
      console.log("ready");
      await new Promise<never>(() => setInterval(() => {}, 1000));
    });`;
  const { code, said } = await run(namespace, text, ["SIGINT", "SIGINT"], [], ["--quiet"]);
  assert.equal(code, 130, said);
  assert.deepEqual(await state(), before);
});

systemTest("openTunnel() rejects with its signal's reason while an end opens", NEEDS, async () => {
  const { namespace, state } = await openPlace();
  await using _namespace = namespace;
  const before = await state();
  const text = `
    const abort = new AbortController();
    const far = () => { setTimeout(() => abort.abort(new Error("enough")), 100); return new Promise<never>(() => {}); };
    const opening = openTunnel({ ${PREPARED}, far, signal: abort.signal });
    console.error(await opening.catch((error) => error.message));`;
  const { code, said } = await run(namespace, text, []);
  assert.deepEqual([code, said], [0, "enough\n"]);
  assert.deepEqual(await state(), before);
});

systemTest("Closing a tunnel does not wait for a far end that never closes", NEEDS, async () => {
  await using namespace = await openNamespace();
  const text = `
    const far = () => ({
      name: "stuck", queued: 0, waits: [{ waitable: undefined }], closed: new Promise<void>(() => {}),
      attach() {}, read: () => 0, write: () => 0, close() {}, [Symbol.dispose]() {},
    });
    const tunnel = await openTunnel({ address: "10.9.0.2/24", far });
    const run = tunnel.run();
    tunnel.close();
    await run;
    console.error("closed");`;
  const { code, said } = await run(namespace, text, []);
  assert.deepEqual([code, said], [0, "closed\n"]);
});

for (const signal of ["HUP", "INT", "TERM"]) {
  systemTest(`SIG${signal} that was ignored at the start does not end a tunnel`, NEEDS, async () => {
    await using namespace = await openNamespace();
    const text = `
      export default script(import.meta, { address: "10.9.0.2/24" }, async (tunnel) => {
        const run = tunnel.run();
        console.log("ready");
        setTimeout(() => { console.error("lives"); tunnel.close(); }, 500);
        await run;
      });`;
    const shell = ["sh", "-c", `trap "" ${signal}; exec "$@"`, "sh"];
    const { code, said } = await run(namespace, text, [`SIG${signal}` as Deno.Signal], shell, ["--quiet"]);
    assert.deepEqual([code, said], [0, "lives\n"]);
  });
}

systemTest("A script's own listener hears a signal that was ignored at the start", NEEDS, async () => {
  await using namespace = await openNamespace();
  const text = `
    export default script(import.meta, { address: "10.9.0.2/24" }, async (tunnel) => {
      Deno.addSignalListener("SIGHUP", () => { console.error("heard"); tunnel.close(); });
      const run = tunnel.run();
      console.log("ready");
      await run;
    });`;
  const shell = ["sh", "-c", `trap "" HUP; exec "$@"`, "sh"];
  const { code, said } = await run(namespace, text, ["SIGHUP"], shell, ["--quiet"]);
  assert.deepEqual([code, said], [0, "heard\n"]);
});
