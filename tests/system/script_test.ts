/** How scripts end: as programs of their own, in namespaces, with what a person sees. */

import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";
import { type Namespace, openNamespace, systemTest } from "../kit/system.ts";

const NEEDS = { programs: ["ip"] };
const SETTINGS = fileURLToPath(new URL("../../deno.json", import.meta.url));
const RULE = `{ address: "10.9.0.1/24", rule: { table: 77, from: "10.9.0.0/24" } }`;

/** What became of a script. */
interface Ended {
  code: number;
  said: string;
}

/** Runs a script whose `main` has this body; once it printed `ready`, it gets the signal. */
async function run(
  namespace: Namespace,
  options: string,
  body: string,
  signal?: Deno.Signal,
): Promise<Ended> {
  const folder = await Deno.makeTempDir({ prefix: "warren-script-" });
  try {
    const path = `${folder}/test.ts`;
    await Deno.writeTextFile(
      path,
      `import { script, Verdict } from "@warren/tunnel";
      export default script(import.meta, ${options}, async (tunnel) => { ${body} });
      void Verdict;`,
    );
    const args = ["run", "--quiet", "--no-check", "--allow-ffi", "--config", SETTINGS, path, "--quiet"];
    const child = namespace.spawn(Deno.execPath(), args);
    const errors = new Response(child.stderr).text();
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      if (text.includes("ready") && signal !== undefined) child.kill(signal);
    }
    const { code } = await child.status;
    return { code, said: await errors };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function rules(namespace: Namespace): Promise<number> {
  return (await namespace.ip("rule")).length;
}

systemTest(
  "A script's rules are put back at SIGHUP, Deno.exit(), an uncaught error and a lost rejection",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    const before = await rules(namespace);
    const ways: [string, number, Deno.Signal?][] = [
      [`const run = tunnel.run(); console.log("ready"); await run;`, 0, "SIGHUP"],
      [`setTimeout(() => Deno.exit(7), 10); await tunnel.run();`, 7],
      [`setTimeout(() => { throw new Error("lost"); }, 10); await tunnel.run();`, 1],
      [`setTimeout(() => void Promise.reject(new Error("lost")), 10); await tunnel.run();`, 1],
    ];
    for (const [body, code, signal] of ways) {
      assert.equal((await run(namespace, RULE, body, signal)).code, code, body);
      assert.equal(await rules(namespace), before, body);
    }
  },
);

systemTest(
  "A script that hangs before it runs its tunnel ends at Ctrl-C, and by the watchdog",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    const before = await rules(namespace);
    // The thread that watches needs a moment to start.
    const hang = `await new Promise((resolve) => setTimeout(resolve, 500)); console.log("ready"); for (;;);`;
    const interrupted = await run(namespace, RULE, hang, "SIGINT");
    assert.equal(interrupted.code, 130);
    const found = await run(namespace, RULE.replace("{", "{ watchdog: 400,"), hang);
    assert.equal(found.code, 70);
    assert.match(found.said, /code outside of its stages has not returned for 400 ms/);
    assert.equal(await rules(namespace), before);
  },
);

systemTest(
  "A script that hangs with several tunnels undoes the changes of each",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    const before = await rules(namespace);
    const tunnels = [1, 2, 3].map((i) =>
      `t${i}: { address: "10.9.${i}.1/24", watchdog: 400, rule: { table: ${
        76 + i
      }, from: "10.9.${i}.0/24" } }`
    );
    const hang = "await new Promise((resolve) => setTimeout(resolve, 500)); for (;;);";
    const { code } = await run(namespace, `{ tunnels: { ${tunnels.join(", ")} } }`, hang);
    assert.equal(code, 70);
    assert.equal(await rules(namespace), before);
  },
);

systemTest("A script that does not wait for run() ends with an error", NEEDS, async () => {
  await using namespace = await openNamespace();
  const { code, said } = await run(namespace, `{ name: "tun7" }`, "tunnel.run();");
  assert.equal(code, 1);
  assert.match(
    said,
    /^warren: Cannot end the script: main returned while "tun7" is running: return or await tunnel\.run\(\)$/m,
  );
});

systemTest("Pipes end without an error at Ctrl-C", NEEDS, async () => {
  await using namespace = await openNamespace();
  const body = `const pipe = tunnel.readable.pipeTo(tunnel.writable); console.log("ready"); await pipe;`;
  assert.deepEqual(await run(namespace, "{}", body, "SIGINT"), { code: 0, said: "" });
});

systemTest("A missing --allow-net is one line", NEEDS, async () => {
  await using namespace = await openNamespace();
  for (
    const far of [
      "udp://localhost:4500",
      "ws://127.0.0.1:8080/",
      "ws://127.0.0.1:1/?listen",
    ]
  ) {
    const { code, said } = await run(namespace, `{ far: "${far}" }`, "await tunnel.run();");
    assert.equal(code, 1);
    assert.match(said, /^warren: Cannot use .*: it requires net access: run again with --allow-net\n$/, far);
  }
});
