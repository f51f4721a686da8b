/** The scripts with VPN ends between real machines: pings, TCP both ways, and what the wire shows. */

import assert from "node:assert/strict";
import { link, type Namespace, openNamespace, systemTest } from "../kit/system.ts";
import { firstAnswer, iperf, ping, type Running, startScript } from "../kit/traffic.ts";

const NEEDS = { programs: ["bash", "ip", "iperf3", "ping", "tcpdump"] };
const KEY = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const FAR = ["--far", "udp://192.0.2.1:4500"];

/** A machine with a link to each of the others, of which number `i` has 192.0.2.(16 i + 2), and the first (16 i + 1). */
async function openMachines(undo: AsyncDisposableStack, count: number): Promise<Namespace[]> {
  const hub = undo.use(await openNamespace());
  const machines = [hub];
  for (let i = 0; i < count - 1; i++) {
    const namespace = undo.use(await openNamespace());
    const near = { namespace: hub, name: `port${i}`, addresses: [`192.0.2.${16 * i + 1}/28`] };
    await link(near, { namespace, name: "veth", addresses: [`192.0.2.${16 * i + 2}/28`] });
    machines.push(namespace);
  }
  return machines;
}

function start(namespace: Namespace, script: string, number: number, ...flags: string[]): Promise<Running> {
  return startScript(namespace, script, "--name", "w0", "--address", `10.9.0.${number}/24`, ...flags);
}

async function assertCarries(from: Namespace, to: Namespace, address: string): Promise<void> {
  await firstAnswer(from, address);
  const { answered } = await ping(from, "-c", "3", "-i", "0.2", "-W", "2", address);
  assert.deepEqual(answered, [1, 2, 3]);
  for (const reverse of [[], ["-R"]]) {
    const { end } = await iperf(from, to, address, "-t", "1", ...reverse);
    assert.ok(end.sum_received.bytes > 1_000_000, `${end.sum_received.bytes}`);
  }
}

/** Ends a script, and returns what it said. */
async function stop(running: Running): Promise<string> {
  const { code, heard } = await running.stop();
  assert.equal(code, 0, heard);
  return heard;
}

for (
  const [script, name, server, client] of [
    ["own_vpn.ts", "own VPN", [], ["--client"]],
    ["udp_tunnel.ts", "sealed", [], []],
  ] as const
) {
  for (const offload of [[], ["--no-offload"]]) {
    systemTest(
      `${script} carries pings and TCP, refuses strangers and replays, and follows its peer, ${
        offload[0] ?? "with super-packets"
      }`,
      NEEDS,
      async () => {
        await using undo = new AsyncDisposableStack();
        const [left, right] = await openMachines(undo, 2) as [Namespace, Namespace];
        const serving = undo.use(await start(left, script, 1, "--key", KEY, ...server, ...offload));
        assert.match(serving.heard, new RegExp(`to ${name} over udp listening on 0.0.0.0:4500`));
        const ours = undo.use(await start(right, script, 2, "--key", KEY, ...client, ...offload, ...FAR));
        await assertCarries(right, left, "10.9.0.1");
        // A stranger's datagrams are dropped and do not move the peer.
        for (const bytes of ["\\x45\\x00\\x00\\x14", "$(printf '%0200d' 7)"]) {
          await right.command("bash", ["-c", `printf "${bytes}" > /dev/udp/192.0.2.1/4500`]);
        }
        assert.deepEqual((await ping(left, "-c", "2", "-i", "0.2", "-W", "2", "10.9.0.2")).answered, [1, 2]);
        // The client's address changes; its next packet moves the peer.
        await right.command("ip", ["addr", "del", "192.0.2.2/28", "dev", "veth"]);
        await right.command("ip", ["addr", "add", "192.0.2.5/28", "dev", "veth"]);
        assert.deepEqual((await ping(right, "-c", "2", "-i", "0.2", "-W", "2", "10.9.0.1")).answered, [1, 2]);
        // Either side starts anew.
        await stop(ours);
        const again = undo.use(await start(right, script, 2, "--key", KEY, ...client, ...offload, ...FAR));
        await firstAnswer(right, "10.9.0.1");
        await stop(again);
        assert.match(
          await stop(serving),
          script === "own_vpn.ts" ? /forged or replayed \d/ : /unknown key 1/,
        );
      },
    );
  }
}

systemTest(
  "udp_tunnel.ts with another key carries nothing, and asks for a key without one",
  NEEDS,
  async () => {
    await using undo = new AsyncDisposableStack();
    const [left, right] = await openMachines(undo, 2) as [Namespace, Namespace];
    undo.use(await start(left, "udp_tunnel.ts", 1, "--key", KEY));
    undo.use(await start(right, "udp_tunnel.ts", 2, "--key", KEY.replace("9", "8"), ...FAR));
    assert.deepEqual((await ping(right, "-c", "2", "-i", "0.2", "-W", "1", "10.9.0.1")).answered, []);
    await assert.rejects(
      start(right, "udp_tunnel.ts", 2, ...FAR),
      /--key is missing: secret of both sides, from: openssl rand -base64 32/,
    );
  },
);

systemTest("hub.ts joins three clients, each by its own key", NEEDS, async () => {
  await using undo = new AsyncDisposableStack();
  const [hub, ...clients] = await openMachines(undo, 4) as [Namespace, Namespace, Namespace, Namespace];
  undo.use(await start(hub, "hub.ts", 1, "--key", KEY));
  for (const [i, name] of ["laptop", "phone", "office"].entries()) {
    undo.use(
      await start(
        clients[i]!,
        "udp_tunnel.ts",
        i + 2,
        "--key",
        KEY,
        "--as",
        name,
        "--far",
        `udp://192.0.2.${16 * i + 1}:4500`,
      ),
    );
  }
  const [laptop, phone, office] = clients as [Namespace, Namespace, Namespace];
  for (const client of clients) await firstAnswer(client, "10.9.0.1");
  await assertCarries(laptop, phone, "10.9.0.3");
  await firstAnswer(phone, "10.9.0.4");
  await firstAnswer(hub, "10.9.0.4");
  // Nobody sends from another client's address.
  await office.command("ip", ["addr", "add", "10.9.0.9/32", "dev", "w0"]);
  const spoofed = await ping(office, "-c", "1", "-W", "1", "-I", "10.9.0.9", "10.9.0.2");
  assert.deepEqual(spoofed.answered, []);
});
