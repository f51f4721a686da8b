/** The counters of a tunnel against numbers in the packets, the kernel's own counters and the receiver. */

import assert from "node:assert/strict";
import { runModule, systemTest } from "../kit/system.ts";
import {
  CROSSING,
  Crossing,
  type KernelCounters,
  kernelCounters,
  protocolCounter,
  type Running,
  startModule,
} from "../kit/traffic.ts";
import { Fate, type Received, type Seen, type Sent } from "./counters_scenarios.ts";

const SCENARIOS = new URL("./counters_scenarios.ts", import.meta.url);
const NEEDS = { programs: ["ip", "ping", "sysctl"] };
const COUNT = 50_000;

/** What a scenario has said behind this word. */
async function told<Result>(running: Running, word: string): Promise<Result> {
  const line = new RegExp(`^${word} (.*)\n`, "m");
  await running.said(line);
  return JSON.parse(line.exec(running.heard)![1]!);
}

function sum(counts: Iterable<number>): number {
  return [...counts].reduce((total, count) => total + count, 0);
}

/** The counters of a device as `ip -s link` shows them, in the tunnel's words. */
function asStatistics({ rx, tx }: KernelCounters): Seen["devices"][number] {
  return {
    rxPackets: rx.packets,
    rxBytes: rx.bytes,
    rxDropped: rx.dropped,
    txPackets: tx.packets,
    txBytes: tx.bytes,
    txDropped: tx.dropped,
  };
}

systemTest(
  "tunnel.stats adds up, with the kernel's counters, what was sent, what was replied and what was received",
  NEEDS,
  async (context) => {
    await using crossing = await Crossing.open();
    const { left, middle, right } = crossing;
    // The devices to come have no IPv6, whose router solicitations would be dropped among the others.
    await middle.command("sysctl", ["-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
    await using tunnel = await startModule(middle, SCENARIOS, ["tunnel"], ["--allow-ffi"]);
    await crossing.route(["-4"]);
    await using receiver = await startModule(right, SCENARIOS, ["receive"], ["--allow-net"]);
    const words = ["send", String(COUNT), CROSSING.right.ipv4];
    const sent = await runModule<Sent>(left, SCENARIOS, words, ["--allow-net"]);
    const seen = await told<Seen>(tunnel, "rest");
    const [device, far] = await Promise.all([
      kernelCounters(middle, "left"),
      kernelCounters(middle, "right"),
    ]);
    const [unreadReplies, unread] = await Promise.all([
      protocolCounter(left, "UdpRcvbufErrors"),
      protocolCounter(right, "UdpRcvbufErrors"),
    ]);
    receiver.signal("SIGINT");
    const received = await told<Received>(receiver, "received");
    const { stats, fates, ends, others } = seen;

    for (const place of ["outside", "inside"] as const) {
      await context.step(`at every moment, looked at from ${place} the handler`, () => {
        assert.ok(seen.looks[place] > 50, `${seen.looks[place]} looks`);
        assert.ok(seen.looks.mostQueued > 0);
        assert.deepEqual(seen.wrong.filter(({ where }) => where === place), []);
      });
    }

    // What was sent: the kernel dropped it, or the tunnel got it.
    assert.deepEqual([sent.refused, sent.sent], [0, COUNT + sent.ends]);
    assert.ok(device.tx.dropped > 0, "the kernel's queue did not overflow");
    assert.equal(sent.sent, device.tx.dropped + sum(fates) + ends);
    assert.equal(stats.outbound.packetsIn, sum(fates) + ends);
    assert.deepEqual([seen.disordered, others], [0, 0]);

    // What became of it, by numbers.
    assert.deepEqual(stats.dropped, { "by number": fates[Fate.Stage], byNumber: fates[Fate.Drop] });
    assert.equal(stats.outbound.packetsOut, fates[Fate.Pass]! + fates[Fate.Hold]!);
    assert.equal(stats.inbound.packetsOut, fates[Fate.Reply]! + ends);
    assert.deepEqual([stats.queued, stats.created, stats.malformed], [0, 0, 0]);

    // The kernel's counters: its own, by another program, and as the device tells them.
    assert.deepEqual(seen.devices, [asStatistics(device), asStatistics(far)]);
    assert.deepEqual(
      [device.tx.packets, device.tx.bytes],
      [stats.outbound.packetsIn, stats.outbound.bytesIn],
    );
    assert.deepEqual([far.rx.packets, far.rx.bytes], [stats.outbound.packetsOut, stats.outbound.bytesOut]);
    assert.deepEqual([far.tx.packets, far.tx.bytes], [stats.inbound.packetsIn, stats.inbound.bytesIn]);
    assert.deepEqual([device.rx.packets, device.rx.bytes], [
      stats.inbound.packetsOut,
      stats.inbound.bytesOut,
    ]);
    assert.deepEqual([device.rx.dropped, far.rx.dropped, far.tx.dropped], [0, 0, 0]);

    // Who got it.
    assert.equal(sum(received.fates), stats.outbound.packetsOut - unread);
    if (unread === 0) {
      assert.deepEqual(received.fates, [0, 0, fates[Fate.Pass], fates[Fate.Hold], 0]);
    }
    assert.deepEqual([received.doubled, received.disordered], [0, 0]);
    assert.equal(sum(sent.replies) + sent.endReplies, stats.inbound.packetsOut - unreadReplies);
    assert.equal(sum(sent.replies), sent.replies[Fate.Reply]);
    assert.equal(sent.doubled, 0);

    tunnel.signal("SIGINT");
    const closed = await told<Seen>(tunnel, "closed");
    assert.deepEqual({ ...closed.stats }, { ...stats });
    assert.equal((await tunnel.ended()).code, 0);
    console.log(
      `${sent.sent} sent: ${device.tx.dropped} dropped by the kernel, ${stats.outbound.packetsIn} in, ` +
        `${stats.outbound.packetsOut} passed, ${stats.inbound.packetsOut} replied, ` +
        `${sum(Object.values(stats.dropped))} dropped, at most ${seen.looks.mostQueued} queued, ` +
        `${seen.looks.outside + seen.looks.inside} looks`,
    );
  },
);
