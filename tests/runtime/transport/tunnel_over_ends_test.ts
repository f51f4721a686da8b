/** Tunnels over each end reply to packets, one at a time and more at once than a batch holds. */

import assert from "node:assert/strict";
import { MemoryDevice } from "../../../driver/memory.ts";
import { Direction, PacketBatch, type TunnelEnd } from "../../../lib/core/mod.ts";
import { openTunnel, udp, Verdict, websocket } from "../../../runtime/mod.ts";
import { numbered, receive, sequenceOf } from "../../conformance/end.ts";
import { TestHost, until } from "../../kit/host.ts";
import { openSockets } from "../../kit/sockets.ts";
import { assertNothingLeft, ManualEnd, QUIET } from "../../kit/tunnel.ts";

await openSockets();

const HERE = "127.0.0.1:0";
/** More than fill a batch. */
const BURST = 65;
/** First number of packets from the device. */
const PASSING = 100_000;

/** Two ends, of which each reads what the other one writes. */
interface Road {
  /** The tunnel's. */
  readonly near: TunnelEnd;
  /** The test's. */
  readonly beyond: TunnelEnd;
  /** Settled when packets can pass. */
  ready?(): Promise<void>;
}

const ROADS: Record<string, () => Promise<Road> | Road> = {
  MemoryDevice() {
    const [near, beyond] = MemoryDevice.pair();
    return { near, beyond };
  },
  async "udp() with a peer"() {
    const scout = await udp({ listen: HERE })();
    const place = scout.local!;
    scout.close();
    await scout.closed;
    const near = await udp({ peer: place, listen: HERE })();
    return { near, beyond: await udp({ peer: near.local!, listen: place })() };
  },
  async "udp() without a peer"() {
    const near = await udp({ listen: HERE })();
    return { near, beyond: await udp({ peer: near.local! })() };
  },
  async "websocket() that listens"() {
    const near = await websocket({ listen: HERE })();
    const beyond = await websocket({ url: `ws://${near.local}/`, retryAfter: 1 })();
    return {
      near,
      beyond,
      ready: () => until(() => near.connected && beyond.connected, "both were connected"),
    };
  },
  async "websocket() that connects"() {
    const beyond = await websocket({ listen: HERE })();
    const near = await websocket({ url: `ws://${beyond.local}/`, retryAfter: 1 })();
    return {
      near,
      beyond,
      ready: () => until(() => near.connected && beyond.connected, "both were connected"),
    };
  },
};

/** A tunnel over an end that replies to packets, and the other side of that end. */
async function start(road: Road) {
  const { near, beyond } = road;
  const device = new ManualEnd("device");
  const tunnel = await openTunnel({ device, far: near, ...QUIET });
  const run = tunnel.run((_, { direction }) =>
    direction === Direction.Inbound ? Verdict.Reply : Verdict.Pass
  );
  const host = new TestHost();
  beyond.attach(host);
  await road.ready?.();
  return {
    tunnel,
    device,
    beyond,
    host,
    /** Sends numbered packets from beyond. */
    async send(numbers: readonly number[]): Promise<void> {
      const batch = new PacketBatch();
      for (const number of numbers) batch.push(numbered(host.pool, number));
      await until(() => (beyond.write(batch), batch.length === 0), `${numbers.length} packets were taken`);
    },
    async [Symbol.asyncDispose](): Promise<void> {
      tunnel.close();
      // A memory device fails when its other side is closed first.
      await run;
      beyond.close();
      await beyond.closed;
      assert.equal(host.pool.taken, 0);
      assertNothingLeft(tunnel);
    },
  };
}

function numbers(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}

for (const [name, open] of Object.entries(ROADS)) {
  for (const [count, rounds] of [[1, 100], [2, 50], [64, 10], [BURST, 10], [130, 5]] as const) {
    const what = count === 1 ? "one packet at a time" : `${count} packets at a time`;
    Deno.test(`A tunnel over ${name} answers ${what}`, async () => {
      await using work = await start(await open());
      for (let round = 0; round < rounds; round++) {
        const sent = numbers(round * count, count);
        await work.send(sent);
        // Nothing else comes that would carry along an answer that lies.
        const answers = await receive(work.beyond, work.host, count);
        assert.deepEqual(answers.map(sequenceOf), sent);
      }
      const { inbound, outbound, dropped } = work.tunnel.stats;
      assert.equal(inbound.packetsIn, rounds * count);
      await until(() => work.tunnel.stats.queued === 0, "nothing was queued");
      assert.equal(work.tunnel.stats.outbound.packetsOut, rounds * count);
      assert.deepEqual([outbound.packetsIn, inbound.packetsOut, dropped], [0, 0, {}]);
      assert.equal(work.host.lost, 0);
    });
  }

  Deno.test(`A tunnel over ${name} answers while packets pass from its device`, async () => {
    await using work = await start(await open());
    const { device, beyond, host } = work;
    // Without a peer, the first packet says where the others go.
    await work.send([0]);
    await receive(beyond, host, 1);
    for (let round = 0; round < 10; round++) {
      const [passing, asking] = [numbers(PASSING + round * BURST, BURST), numbers(round * BURST, BURST)];
      const made = passing.map((number) => numbered(host.pool, number));
      device.come(...made.map((packet) => packet.data.slice()));
      for (const packet of made) host.pool.give(packet);
      await work.send(asking);
      const got = (await receive(beyond, host, 2 * BURST)).map(sequenceOf);
      assert.deepEqual(got.filter((number) => number >= PASSING), passing);
      assert.deepEqual(got.filter((number) => number < PASSING), asking);
    }
  });
}
