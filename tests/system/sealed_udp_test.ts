/** A stage that seals, over UDP between two machines: super-packets on and off, roaming, and strangers. */

import assert from "node:assert/strict";
import { link, openNamespace, systemTest } from "../kit/system.ts";
import { firstAnswer, iperf, ping, startScript } from "../kit/traffic.ts";

const SCRIPT = new URL("./sealed_udp_scenario.ts", import.meta.url).href;

for (const offload of [[], ["--no-offload"]]) {
  systemTest(
    `a stage that seals carries TCP over udp() with payload any, ${offload[0] ?? "with super-packets"}`,
    { programs: ["bash", "ip", "iperf3", "ping"] },
    async () => {
      await using left = await openNamespace();
      await using right = await openNamespace();
      await link(
        { namespace: left, name: "veth", addresses: ["192.0.2.1/24", "192.0.2.11/24"] },
        { namespace: right, name: "veth", addresses: ["192.0.2.2/24", "192.0.2.3/24"] },
      );
      await using server = await startScript(right, SCRIPT, "--name", "w0", ...offload);
      // The server's second address, which its replies must come from.
      const far = ["--far", "udp://192.0.2.3:4500?payload=any"];
      const flags = ["--name", "w0", "--address", "10.9.0.2/24", ...offload, ...far];
      await using _client = await startScript(left, SCRIPT, ...flags);
      await firstAnswer(left, "10.9.0.1");
      for (const reverse of [[], ["-R"]]) {
        const { end } = await iperf(left, right, "10.9.0.1", "-t", "1", ...reverse);
        assert.ok(end.sum_received.bytes > 200_000, `${end.sum_received.bytes}`);
      }
      // A stranger's datagrams, one of which looks like a packet, do not move the peer.
      for (const bytes of ["\\x45\\x00\\x00\\x14", "\\x01\\x02\\x03\\x04\\x00\\x00\\x00\\x00x"]) {
        await left.command("bash", ["-c", `printf '${bytes}' > /dev/udp/192.0.2.2/4500`]);
        const { answered } = await ping(right, "-c", "2", "-i", "0.2", "-W", "2", "10.9.0.2");
        assert.deepEqual(answered, [1, 2]);
      }
      // The client's address changes; its next packet moves the peer.
      await left.command("ip", ["addr", "del", "192.0.2.1/24", "dev", "veth"]);
      await left.command("ip", ["addr", "replace", "192.0.2.11/24", "dev", "veth"]);
      assert.deepEqual((await ping(left, "-c", "2", "-i", "0.2", "-W", "2", "10.9.0.1")).answered, [1, 2]);
      const { code, heard } = await server.stop();
      assert.equal(code, 0);
      assert.match(heard, /seal: forged 2/);
    },
  );
}
