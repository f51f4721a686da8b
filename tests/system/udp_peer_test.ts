/** A UDP transport's peers in namespaces: with several addresses, and with names that have several. */

import { fileURLToPath } from "node:url";
import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { link, type Namespace, openNamespace, runModule, systemTest } from "../kit/system.ts";
import { Running } from "../kit/traffic.ts";
import type { Asked } from "./udp_peer_scenario.ts";

const SCENARIO = new URL("./udp_peer_scenario.ts", import.meta.url);
const NAME = "vpn.example";

/** Two namespaces with a link, each with addresses of both families. */
async function pair(): Promise<AsyncDisposable & { left: Namespace; right: Namespace }> {
  await using undo = new AsyncDisposableStack();
  const left = undo.use(await openNamespace());
  const right = undo.use(await openNamespace());
  await link(
    { namespace: left, name: "veth", addresses: ["192.0.2.10/24", "fdee::10/64"] },
    {
      namespace: right,
      name: "veth",
      addresses: ["192.0.2.1/24", "192.0.2.2/24", "fdee::1/64", "fdee::2/64"],
    },
  );
  // Neighbours answer only some time after a link is up.
  for (const address of ["192.0.2.1", "fdee::1"]) {
    await left.command("ping", ["-c", "1", "-w", "20", address]);
  }
  const moved = undo.move();
  return { left, right, [Symbol.asyncDispose]: () => moved.disposeAsync() };
}

/** An echo in a namespace. */
async function echo(namespace: Namespace, listen: string): Promise<Running> {
  const words = ["run", "--quiet", "--no-prompt", "--allow-ffi", fileURLToPath(SCENARIO), "echo", listen];
  const child = namespace.spawn(Deno.execPath(), words);
  const running = new Running(child, child.stdout, child.stderr);
  await running.said(/^ready$/m);
  return running;
}

function ask(namespace: Namespace, peer: string, count: number): Promise<Asked> {
  return runModule<Asked>(namespace, SCENARIO, ["ask", peer, String(count)], ["--allow-ffi", "--allow-net"]);
}

/** Has a namespace know a name, by a file that `ip netns exec` shows as /etc/hosts. */
async function know({ name }: Namespace, addresses: string[]): Promise<AsyncDisposable> {
  const folder = `/etc/netns/${name}`;
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(`${folder}/hosts`, addresses.map((address) => `${address} ${NAME}\n`).join(""));
  return {
    async [Symbol.asyncDispose]() {
      await Deno.remove(folder, { recursive: true });
      await Deno.remove("/etc/netns").catch(() => {});
    },
  };
}

systemTest(
  "udp() that listens on every address replies from the one that was written to, over IPv4, IPv6 and both",
  { programs: ["ip", "ping"] },
  async () => {
    await using namespaces = await pair();
    const { left, right } = namespaces;
    for (
      const [listen, peers] of [
        ["0.0.0.0:4500", ["192.0.2.2:4500", "192.0.2.1:4500"]],
        ["[::]:4501", ["[fdee::1]:4501", "[fdee::2]:4501", "192.0.2.2:4501"]],
      ] as const
    ) {
      await using _running = await echo(right, listen);
      for (const peer of peers) {
        const { replies, refused } = await ask(left, peer, 2);
        deepStrictEqual([replies, refused], [[true, true], {}], `${peer} of ${listen}`);
      }
    }
  },
);

systemTest(
  "udp() with a name uses the next of its addresses where one is unreachable, or nobody listens there",
  { programs: ["ip", "ping"] },
  async () => {
    await using namespaces = await pair();
    const { left, right } = namespaces;
    await using _known = await know(left, ["fdee::1", "192.0.2.1"]);
    await using _running = await echo(right, "0.0.0.0:4500");
    // IPv6 comes first, and is refused.
    const refused = await ask(left, `${NAME}:4500`, 3);
    strictEqual(refused.peer, "192.0.2.1:4500");
    deepStrictEqual(refused.replies.slice(1), [true, true]);
    deepStrictEqual(refused.refused, { "peer unreachable (ICMP): ECONNREFUSED": 1 });
    // IPv6 comes first, and this machine has none.
    await left.command("ip", ["addr", "flush", "dev", "veth", "scope", "global"]);
    await left.command("ip", ["addr", "add", "192.0.2.10/24", "dev", "veth"]);
    const unreachable = await ask(left, `${NAME}:4500`, 3);
    strictEqual(unreachable.peer, "192.0.2.1:4500");
    deepStrictEqual([unreachable.replies, unreachable.dropped], [[true, true, true], {}]);
  },
);

systemTest(
  "udp() with a name uses its IPv6 address on a machine without IPv4",
  { programs: ["ip", "ping"] },
  async () => {
    await using namespaces = await pair();
    const { left, right } = namespaces;
    await using _known = await know(left, ["192.0.2.1", "fdee::1"]);
    await using _running = await echo(right, "[::]:4500");
    await left.command("ip", ["addr", "flush", "dev", "veth", "scope", "global"]);
    await left.command("ip", ["addr", "add", "fdee::10/64", "dev", "veth", "nodad"]);
    const { peer, replies, dropped } = await ask(left, `${NAME}:4500`, 3);
    strictEqual(peer, "[fdee::1]:4500");
    deepStrictEqual([replies, dropped], [[true, true, true], {}]);
  },
);

systemTest(
  "udp() with a name finds the address that the name gets later, where the first one is silent",
  { programs: ["ip", "nft", "ping"] },
  async () => {
    await using namespaces = await pair();
    const { left, right } = namespaces;
    await right.command("nft", ["-f", "-"], {
      stdin:
        "table inet t {\nchain c {\ntype filter hook input priority 0\nip daddr 192.0.2.2 udp dport 4500 drop\n}\n}\n",
    });
    await using _running = await echo(right, "0.0.0.0:4500");
    await using _known = await know(left, ["192.0.2.2"]);
    const asking = ask(left, `${NAME}:4500`, 18);
    // The file is the same one in the namespace's mounts.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    await Deno.writeTextFile(`/etc/netns/${left.name}/hosts`, `192.0.2.1 ${NAME}\n`);
    const { replies, peer } = await asking;
    ok(replies.at(-1) && !replies[0], `${replies}`);
    strictEqual(peer, "192.0.2.1:4500");
  },
);
