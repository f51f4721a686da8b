/** wss:// servers of an authority that only `--cert` knows, and permissions: each in a process of its own. */

import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { websocket } from "../../runtime/transport/websocket.ts";
import { AUTHORITY, CERTIFICATE, EXPIRED_CERTIFICATE, KEY } from "../kit/certificates.ts";
import { RawPeer } from "../kit/raw_websocket.ts";
import { systemTest } from "../kit/system.ts";
import { Running } from "../kit/traffic.ts";

const MODULE = new URL("../../runtime/transport/websocket.ts", import.meta.url);

/** Connects to each URL in turn, and prints how that went as JSON. */
const CLIENT = `
const { websocket } = await import(${JSON.stringify(MODULE.href)});
const results = [];
for (const url of Deno.args) {
  try {
    const end = await websocket({ url })();
    results.push("connected");
    end.close();
    await end.closed;
  } catch (error) {
    results.push(\`\${error.name}: \${error.message}\`);
  }
}
console.log(JSON.stringify(results));
`;

/** Listens, uses up its own descriptors until strangers meet that, and gives them back when told. */
const SERVER = `
const { websocket } = await import(${JSON.stringify(MODULE.href)});
const end = await websocket({ listen: "127.0.0.1:0" })();
const files = [];
try {
  while (true) files.push(await Deno.open("/dev/null"));
} catch {
  files.pop().close();
  files.pop().close();
}
console.log("listening on " + end.local);
const full = async () => {
  try {
    (await Deno.open("/dev/null")).close();
    return false;
  } catch {
    return true;
  }
};
while (!await full()) await new Promise((resolve) => setTimeout(resolve, 10));
console.log("no descriptor");
await Deno.stdin.read(new Uint8Array(1));
for (const file of files) file.close();
console.log("descriptors again");
while (await Deno.stdin.read(new Uint8Array(1)) !== null);
end.close();
await end.closed;
`;

Deno.test("wss:// connects to a server of an authority from --cert, by the names in its certificate alone", async () => {
  const authority = await Deno.makeTempFile({ suffix: ".pem" });
  await Deno.writeTextFile(authority, AUTHORITY);
  await using good = secured(CERTIFICATE);
  await using expired = secured(EXPIRED_CERTIFICATE);
  const results = await client(["--allow-net", "--cert", authority], [
    `wss://127.0.0.1:${good.port}/`,
    `wss://localhost:${good.port}/`,
    `wss://127.0.0.2:${good.port}/`,
    `wss://127.0.0.1:${expired.port}/`,
  ]);
  await Deno.remove(authority);
  deepStrictEqual(results.slice(0, 2), ["connected", "connected"]);
  const other = results[2]!;
  ok(
    other.startsWith(
      `InvalidData: Cannot connect to wss://127.0.0.2:${good.port}/: the server's certificate is for another name, `,
    ) && other.includes("localhost") && other.endsWith(": connect to a name in the certificate"),
    other,
  );
  ok(
    /the server's certificate has expired: renew it, or correct this machine's clock$/.test(results[3]!),
    results[3],
  );
});

Deno.test("ws:// needs --allow-net alone, or its host in that list, and says so", async () => {
  const server = await websocket({ listen: "127.0.0.1:0" })();
  const { port } = new URL(`tcp://${server.local}`);
  const byName = `ws://localhost:${port}/`;
  deepStrictEqual(await client(["--allow-net"], [byName]), ["connected"]);
  deepStrictEqual(await client([`--allow-net=localhost:${port}`], [byName]), ["connected"]);
  const refused =
    `NotCapable: Cannot use localhost:${port}: it requires net access: run again with --allow-net`;
  deepStrictEqual(await client([], [byName]), [refused]);
  deepStrictEqual(await client(["--allow-net=localhost:1"], [byName]), [refused]);
  server.close();
  await server.closed;
});

systemTest(
  "ws:// listens on though strangers use up all descriptors",
  { root: false, programs: ["bash"] },
  async () => {
    const script = await Deno.makeTempFile({ suffix: ".ts" });
    await Deno.writeTextFile(script, SERVER);
    // Descriptors that nobody closes leave less than what the listening side takes for strangers.
    const command = new Deno.Command("bash", {
      args: ["-c", 'ulimit -n 60 && exec "$@"', "bash", Deno.execPath(), "run", "-A", "--no-config", script],
      env: { NO_COLOR: "1" },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    });
    const child = command.spawn();
    await using server = new Running(child, child.stdout, child.stderr);
    const writer = child.stdin.getWriter();
    await server.said(/listening on .*\n/);
    const place = /listening on (.*)\n/.exec(server.heard)![1]!;
    {
      await using held = new AsyncDisposableStack();
      for (let i = 0; i < 100; i++) held.use(await RawPeer.connect(place));
      await server.said(/no descriptor/);
      await writer.write(Uint8Array.of(0));
      await server.said(/descriptors again/);
    }
    const client = await websocket({ url: `ws://${place}/` })();
    client.close();
    await client.closed;
    await writer.close();
    strictEqual((await server.ended()).code, 0);
    await Deno.remove(script);
  },
);

async function client(flags: string[], urls: string[]): Promise<string[]> {
  const script = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(script, CLIENT);
  const command = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-config", "--allow-import", ...flags, script, ...urls],
    env: { NO_COLOR: "1" },
  });
  const { code, stdout, stderr } = await command.output();
  await Deno.remove(script);
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  strictEqual(code, 0, decode(stderr));
  return JSON.parse(decode(stdout));
}

/** A server that answers each handshake, and ends each connection with its peer. */
function secured(cert: string): { port: number } & AsyncDisposable {
  const listener = Deno.listenTls({ hostname: "0.0.0.0", port: 0, cert, key: KEY });
  let isClosed = false;
  const serving = (async () => {
    while (!isClosed) {
      try {
        using peer = await RawPeer.accept(listener);
        await peer.ended();
      } catch {
        // The client does not trust it, or the test is over.
      }
    }
  })();
  return {
    port: listener.addr.port,
    [Symbol.asyncDispose]: async () => {
      isClosed = true;
      listener.close();
      await serving;
    },
  };
}
