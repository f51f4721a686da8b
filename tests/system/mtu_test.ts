/** Tunnels whose far end carries less than their device: nothing vanishes for its length. */

import assert from "node:assert/strict";
import { link, openNamespace, systemTest } from "../kit/system.ts";
import { firstAnswer, iperf, ping, startScript } from "../kit/traffic.ts";

/** So that even the longest packets need no fragments outside. */
const OUTER_MTU = "9200";

for (const [query, carried] of [["", 1500], ["mtu=4000", 4000], ["mtu=9000", 9000]] as const) {
  systemTest(
    `a tunnel with --mtu 9000 over udp:// ${
      query || "as it is"
    } answers what is longer than ${carried}, and carries TCP`,
    { programs: ["ip", "iperf3", "ping"] },
    async () => {
      await using left = await openNamespace();
      await using right = await openNamespace();
      await link(
        { namespace: left, name: "veth", addresses: ["192.0.2.1/24"] },
        { namespace: right, name: "veth", addresses: ["192.0.2.2/24"] },
      );
      for (const namespace of [left, right]) {
        await namespace.command("ip", ["link", "set", "veth", "mtu", OUTER_MTU]);
      }
      const flags = (number: number) => [
        ...["--name", "w0", "--mtu", "9000"],
        ...["--address", `10.9.0.${number}/24`, "--address", `fd09::${number}/64`],
      ];
      const listen = `udp://0.0.0.0:4500?listen${query && `&${query}`}`;
      const peer = `udp://192.0.2.2:4500${query && `?${query}`}`;
      await using _right = await startScript(right, "plain_udp.ts", ...flags(2), "--far", listen);
      await using running = await startScript(left, "plain_udp.ts", ...flags(1), "--far", peer);
      for (const [address, headers] of [["10.9.0.2", 28], ["fd09::2", 48]] as const) {
        await firstAnswer(left, address);
        const fitting = await ping(
          left,
          "-c",
          "2",
          "-i",
          "0.2",
          "-M",
          "do",
          "-s",
          `${carried - headers}`,
          address,
        );
        assert.deepEqual(fitting.answered, [1, 2]);
        if (carried === 9000) continue;
        // The first one is answered by the tunnel, the second by the system, which has learned.
        const size = `${carried - headers + 1}`;
        const { stdout } = await left.command(
          "ping",
          ["-n", "-c", "2", "-i", "0.2", "-W", "1", "-M", "do", "-s", size, address],
          { check: false },
        );
        const told = address.includes(":") ? "Packet too big" : "Frag needed";
        assert.match(stdout, new RegExp(`From ${address} icmp_seq=1 ${told}.*mtu ?= ?${carried}`), stdout);
        assert.match(
          await left.ip("route", "get", address).then(JSON.stringify),
          new RegExp(`"mtu":${carried}`),
        );
      }
      const told = /carries packets up to (\d+) bytes/.exec(running.heard)?.[1];
      assert.equal(told, carried === 9000 ? undefined : `${carried}`);
      for (const reverse of [[], ["-R"]]) {
        const { end } = await iperf(left, right, "10.9.0.2", "-t", "1", ...reverse);
        assert.ok(end.sum_received.bytes >= 4_000_000, `${end.sum_received.bytes}`);
      }
    },
  );
}
