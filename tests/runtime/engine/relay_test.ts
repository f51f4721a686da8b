/** The relay of a tunnel: what it adds to the loop's wait, and which ends it reads afterwards. */

import assert from "node:assert/strict";
import type { Waiter } from "../../../driver/mod.ts";
import { type EndWait, PacketBatch } from "../../../lib/core/mod.ts";
import { Switchboard } from "../../../lib/end/switchboard.ts";
import { Breath } from "../../../runtime/engine/loop.ts";
import { Relay } from "../../../runtime/engine/relay.ts";
import { WakeWaiter } from "../../../runtime/engine/wake_waiter.ts";
import { TestHost } from "../../kit/host.ts";
import { TestPipeline } from "../../kit/pipeline.ts";
import { ManualEnd } from "../../kit/tunnel.ts";

/** A wait whose places are two apart, as those of poll(2). */
class TestWaiter extends (WakeWaiter as new () => Waiter) {
  readonly added: [waitable: number, reads: boolean, writes: boolean][] = [];
  ready: number[] = [];

  override add(...added: [waitable: number, reads: boolean, writes: boolean]): number {
    return 2 * (this.added.push(added) - 1);
  }

  override isReady(place: number): boolean {
    return this.ready.includes(this.added[place / 2]![0]);
  }
}

class DescriptorEnd extends ManualEnd {
  override readonly waits: EndWait[];

  constructor(name: string, waitable: number | undefined) {
    super(name);
    this.waits = [{ waitable }];
  }
}

function rig(...waitables: (number | undefined)[]) {
  const test = new TestPipeline();
  const device = new DescriptorEnd("device", 1);
  const ends = waitables.map((waitable) => new DescriptorEnd(`end ${waitable}`, waitable));
  const far = new Switchboard(ends);
  for (const end of [device, far]) end.attach(new TestHost(test.pool));
  const fail = (error: unknown) => {
    throw error;
  };
  const relay = new Relay(
    { device, far, pipeline: test.pipeline, sent: new PacketBatch(), link: undefined, busyPoll: 0 },
    { breathed() {}, fail },
  );
  const breathe = (waiter?: TestWaiter) => relay.breathe(0, waiter);
  return { relay, device, ends, breathe };
}

Deno.test("Relay reads an end when any of its descriptors is ready, and no other end", () => {
  for (const ready of [2, 3, 4]) {
    const { relay, device, ends, breathe } = rig(2, 3, 4);
    const waiter = new TestWaiter();
    relay.arm(waiter);
    waiter.ready = [ready];
    for (const end of [device, ...ends]) end.come(5);
    assert.equal(breathe(waiter), Breath.Moved);
    assert.deepEqual([device.writtenBytes, ends[0]!.writtenBytes], [[5, 5, 5], []]);
    waiter.ready = [1];
    breathe(waiter);
    assert.deepEqual(device.writtenBytes, [5, 5, 5]);
  }
});

Deno.test("Relay waits for room in the descriptors for which packets wait, and no other", () => {
  const { relay, device, ends, breathe } = rig(2, 3);
  const armed = () => {
    const waiter = new TestWaiter();
    relay.arm(waiter);
    return waiter.added;
  };
  assert.deepEqual(armed(), [[1, true, false], [2, true, false], [3, true, false]]);
  device.room = 0;
  ends[0]!.come(5);
  breathe();
  assert.deepEqual(armed().map(([waitable, , writes]) => [waitable, writes]), [[1, true], [2, false], [
    3,
    false,
  ]]);
});

Deno.test("Relay.waitable is false while an end has no descriptor", () => {
  assert.equal(rig(2, 3).relay.waitable, true);
  assert.equal(rig(2, undefined).relay.waitable, false);
  assert.equal(rig(undefined, 3).relay.waitable, false);
});
