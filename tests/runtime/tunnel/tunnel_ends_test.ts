/** Ends of tunnels: by stages that throw, by their own handlers, by a signal; and the state that is restored. */

import assert from "node:assert/strict";
import { Direction, type Packet, type PacketHandler, type Stage } from "../../../lib/core/mod.ts";
import { currentLoop } from "../../../runtime/engine/loop.ts";
import { openTunnel, type Tunnel, Verdict } from "../../../runtime/mod.ts";
import { assertBalanced, assertNothingLeft, ManualEnd, QUIET } from "../../kit/tunnel.ts";

const { Outbound, Inbound } = Direction;

/** A tunnel over ends that the test drives, which run(handler) holds. */
async function openManual(...stages: (Stage | PacketHandler)[]): Promise<{
  tunnel: Tunnel;
  device: ManualEnd;
  far: ManualEnd;
}> {
  const [device, far] = [new ManualEnd("manual"), new ManualEnd("far")];
  return { tunnel: await openTunnel({ device, far, stages, ...QUIET }), device, far };
}

/** A stage that counts its closes, and may throw then. */
class Closing implements Stage {
  readonly name: string;
  closes = 0;
  readonly #problem: string | undefined;

  constructor(name: string, problem?: string) {
    this.name = name;
    this.#problem = problem;
  }

  close(): void {
    this.closes++;
    if (this.#problem !== undefined) throw new Error(this.#problem);
  }
}

/** Texts of `console.warn` meanwhile. */
class Warnings implements Disposable {
  readonly said: string[] = [];
  readonly #warn = console.warn;

  constructor() {
    console.warn = (text: string) => void this.said.push(text);
  }

  [Symbol.dispose](): void {
    console.warn = this.#warn;
  }
}

/** Messages of an error and of the errors that it consists of. */
function messagesOf(error: unknown): string[] {
  const { message, errors = [] } = error as Error & { errors?: unknown[] };
  return [message, ...errors.flatMap(messagesOf)];
}

/** Reason of a promise's rejection. */
async function rejectionOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  assert.fail("it did not reject");
}

Deno.test("Tunnel.run() rejects when a handler throws after Drop and Reply, and every packet is back", async () => {
  const after = new Closing("after");
  const { tunnel, device, far } = await openManual(after);
  device.come(0, 1, 2, 3, 4);
  far.come(5, 6);
  const run = tunnel.run(function picky(packet) {
    const byte = packet.data[0]!;
    if (byte === 3) throw new Error("boom");
    return byte === 0 ? Verdict.Drop : byte === 1 ? Verdict.Reply : Verdict.Pass;
  });
  await assert.rejects(run, /^Error: Cannot go on with "manual": stage "picky" threw: boom$/);
  assert.deepEqual([after.closes, device.closes, far.closes], [1, 1, 1]);
  assert.equal(tunnel.stats.dropped.picky, 1);
  assertNothingLeft(tunnel);
});

for (const direction of [Outbound, Inbound]) {
  const way = direction === Outbound ? "out" : "in";
  Deno.test(`Tunnel.run() rejects when a stage throws after drop, emit, hold and take on the way ${way}`, async () => {
    for (
      const verbs of [["drop"], ["turn"], ["hold"], ["emit"], ["take"], [
        "drop",
        "turn",
        "hold",
        "emit",
        "take",
      ]]
    ) {
      const act: Stage["outbound"] = (batch, context) => {
        for (const [i, verb] of verbs.entries()) {
          const packet = batch.packets[i]!;
          if (verb === "drop") context.drop(packet, "midway");
          else if (verb === "turn") context.emit(packet, direction === Outbound ? Inbound : Outbound);
          else if (verb === "hold") context.hold(packet);
          else if (verb === "emit") context.emit(packet, direction);
          else context.take(100);
        }
        throw new Error("boom");
      };
      const before = new Closing("before");
      const midway: Stage = { name: "midway", outbound: act, inbound: act };
      const { tunnel, device, far } = await openManual(before, midway, new Closing("behind"));
      (direction === Outbound ? device : far).come(0, 1, 2, 3, 4, 5, 6);
      const error = await rejectionOf(tunnel.run());
      const message = 'Cannot go on with "manual": stage "midway" threw: boom';
      assert.equal((error as Error).message, message, verbs.join());
      assert.equal(before.closes, 1);
      assert.equal(tunnel.stats.created, verbs.includes("take") ? 1 : 0);
      assertNothingLeft(tunnel);
    }
  });
}

Deno.test("Tunnel.run() rejects when a tick throws, with the packets that its stage held given back", async () => {
  const held: Packet[] = [];
  const { tunnel, device } = await openManual({
    name: "late",
    outbound(batch, context) {
      for (const packet of batch) {
        context.hold(packet);
        held.push(packet);
      }
      context.wake();
    },
    tick(context) {
      if (held.length === 0) return undefined;
      context.drop(held.pop()!, "late");
      context.emit(held.pop()!, Inbound);
      throw new Error("boom");
    },
  });
  device.come(1, 2, 3, 4);
  await assert.rejects(tunnel.run(), /^Error: Cannot go on with "manual": stage "late" threw: boom$/);
  assert.deepEqual([tunnel.stats.dropped.late, tunnel.stats.dropped.closed], [1, 3]);
  assertNothingLeft(tunnel);
});

Deno.test("Tunnel.run() shows a thrown value that is not an Error", async () => {
  const { tunnel, device } = await openManual();
  device.come(1);
  const run = tunnel.run(function odd() {
    throw "a string";
  });
  await assert.rejects(run, /^Error: Cannot go on with "manual": stage "odd" threw: a string$/);
  assertNothingLeft(tunnel);
});

Deno.test("Tunnel.run() rejects unhandled when it is not awaited", async () => {
  const unhandled = Promise.withResolvers<PromiseRejectionEvent>();
  const listen = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    unhandled.resolve(event);
  };
  addEventListener("unhandledrejection", listen);
  try {
    const { tunnel, device } = await openManual();
    const run = tunnel.run(function careless() {
      throw new Error("boom");
    });
    device.come(1);
    // That somebody waits for `closed` says nothing about run().
    const closed = await rejectionOf(tunnel.closed);
    const { promise, reason } = await unhandled.promise;
    assert.equal(promise, run);
    assert.equal(reason, closed);
    assert.match(String(reason), /stage "careless" threw: boom$/);
  } finally {
    removeEventListener("unhandledrejection", listen);
  }
});

Deno.test("Tunnel ends with two others when a handler of one aborts their one signal", async () => {
  for (let aborting = 0; aborting < 3; aborting++) {
    const abort = new AbortController();
    const devices = ["a", "b", "c"].map((name) => new ManualEnd(name));
    const tunnels = await Promise.all(
      devices.map((device) => openTunnel({ device, signal: abort.signal, ...QUIET })),
    );
    const runs = tunnels.map((tunnel) =>
      tunnel.run(() => {
        abort.abort();
        return Verdict.Reply;
      })
    );
    devices[aborting]!.come(1, 2);
    await Promise.all(runs);
    assert.deepEqual(devices.map(({ closes }) => closes), [1, 1, 1]);
    tunnels.forEach(assertNothingLeft);
  }
});

Deno.test("Tunnel.close() of every tunnel inside one's handler ends all, and later ones run", async () => {
  for (let closing = 0; closing < 3; closing++) {
    const devices = ["a", "b", "c"].map((name) => new ManualEnd(name));
    const tunnels = await Promise.all(devices.map((device) => openTunnel({ device, ...QUIET })));
    const closeAll = () => {
      for (const tunnel of tunnels) tunnel.close();
      return Verdict.Drop;
    };
    const runs = tunnels.map((tunnel) => tunnel.run(closeAll));
    devices[closing]!.come(1);
    await Promise.all(runs);
    tunnels.forEach(assertNothingLeft);

    const { tunnel: later, device } = await openManual();
    const run = later.run(() => Verdict.Reply);
    device.come(7);
    await device.wrote(1);
    later.close();
    await run;
    assert.deepEqual(device.writtenBytes, [7]);
  }
});

Deno.test("Tunnel goes on when a handler closes the tunnels beside it", async () => {
  for (const staying of [0, 1, 2]) {
    const devices = ["a", "b", "c"].map((name) => new ManualEnd(name));
    const tunnels = await Promise.all(devices.map((device) => openTunnel({ device, ...QUIET })));
    const [stays, device] = [tunnels[staying]!, devices[staying]!];
    const others = tunnels.filter((tunnel) => tunnel !== stays);
    const runs = tunnels.map((tunnel) =>
      tunnel.run(() => {
        for (const other of others) other.close();
        return Verdict.Reply;
      })
    );
    for (const packet of [1, 2, 3]) {
      device.come(packet);
      await device.wrote(packet);
    }
    await Promise.all(others.map(({ closed }) => closed));
    assert.deepEqual(device.writtenBytes, [1, 2, 3]);
    stays.close();
    await Promise.all(runs);
    tunnels.forEach(assertNothingLeft);
  }
});

Deno.test("Tunnel closes each of its stages once, though one throws then", async () => {
  const stages = [new Closing("first"), new Closing("second", "stuck"), new Closing("third")];
  const { tunnel, device, far } = await openManual(...stages);
  const run = tunnel.run();
  tunnel.close();
  const error = await rejectionOf(run);
  tunnel.close();
  assert.ok(messagesOf(error).includes('Cannot close stage "second": stuck'), messagesOf(error).join("; "));
  assert.deepEqual(stages.map(({ closes }) => closes), [1, 1, 1]);
  assert.deepEqual([device.closes, far.closes], [1, 1]);
});

Deno.test("Tunnel rejects with both errors when a stage throws and another cannot be closed", async () => {
  const stages = [new Closing("first", "stuck"), new Closing("second")];
  const { tunnel, device } = await openManual(...stages);
  device.come(1);
  const error = await rejectionOf(tunnel.run(function picky() {
    throw new Error("boom");
  }));
  const messages = messagesOf(error);
  for (
    const message of [
      'Cannot go on with "manual": stage "picky" threw: boom',
      'Cannot close stage "first": stuck',
    ]
  ) {
    assert.ok(messages.includes(message), messages.join("; "));
  }
  assert.deepEqual(stages.map(({ closes }) => closes), [1, 1]);
  assertNothingLeft(tunnel);
});

Deno.test("Tunnel closes its stages once even if it never ran", async () => {
  const stages = [new Closing("first"), new Closing("second", "stuck"), new Closing("third")];
  const { tunnel, device, far } = await openManual(...stages);
  const added = new Closing("added");
  tunnel.use(added);
  tunnel.send(Uint8Array.of(1));
  tunnel.close();
  tunnel.close();
  const messages = messagesOf(await rejectionOf(tunnel.closed));
  assert.ok(messages.includes('Cannot close stage "second": stuck'), messages.join("; "));
  assert.deepEqual([...stages, added].map(({ closes }) => closes), [1, 1, 1, 1]);
  assert.deepEqual([device.closes, far.closes], [1, 1]);
  assertNothingLeft(tunnel);
});

Deno.test("Tunnel closes its device when its far end cannot be closed", async () => {
  const { tunnel, device, far } = await openManual();
  far.close = () => {
    throw new Error("far is stuck");
  };
  const run = tunnel.run();
  tunnel.close();
  await assert.rejects(run, /^Error: far is stuck$/);
  assert.equal(device.closes, 1);
});

Deno.test("openTunnel() closes the device when the far end does not open, and later tunnels run", async () => {
  const device = new ManualEnd();
  const far = () => Promise.reject(new Error("nobody is there"));
  await assert.rejects(openTunnel({ device, far, ...QUIET }), /^Error: nobody is there$/);
  assert.equal(device.closes, 1);
  const { tunnel: later, device: next } = await openManual();
  const run = later.run(() => Verdict.Reply);
  next.come(7);
  await next.wrote(1);
  later.close();
  await run;
});

Deno.test("openTunnel() that fails closes every end, and rejects with its own error, whatever closing them throws", async () => {
  using warnings = new Warnings();
  const [device, far] = [new ManualEnd("manual"), new ManualEnd("far")];
  const close = far.close.bind(far);
  far.close = () => {
    close();
    throw new Error("Cannot close far: it is stuck");
  };
  const stages = [5 as unknown as Stage];
  await assert.rejects(
    openTunnel({ device, far: () => far, stages, ...QUIET }),
    /^TypeError: Cannot use a stage: it must be a function or an object, got 5$/,
  );
  assert.deepEqual([device.closes, far.closes], [1, 1]);
  assert.match(warnings.said.join(), /^warren: Error: Cannot close far: it is stuck\n/);
});

Deno.test("openTunnel() that was aborted closes a far end that opens later, whatever closing it throws", async () => {
  using warnings = new Warnings();
  const far = new ManualEnd("far");
  const late = Promise.withResolvers<ManualEnd>();
  const closed = Promise.withResolvers<void>();
  far.close = () => {
    closed.resolve();
    throw new Error("Cannot close far: it is stuck");
  };
  const abort = new AbortController();
  const opening = openTunnel({
    device: new ManualEnd(),
    far: () => late.promise,
    signal: abort.signal,
    ...QUIET,
  });
  const rejected = assert.rejects(opening, /^Error: no more$/);
  await Promise.resolve();
  abort.abort(new Error("no more"));
  await rejected;
  late.resolve(far);
  await closed.promise;
  assert.match(warnings.said.join(), /^warren: Error: Cannot close far: it is stuck\n/);
});

Deno.test("Tunnel goes on after an error that the program's own listener catches, and ends by one that it does not", async () => {
  let catches = true;
  const listener = (event: Event) => catches && event.preventDefault();
  addEventListener("error", listener);
  try {
    const device = new ManualEnd();
    const tunnel = await openTunnel({ device });
    dispatchEvent(new ErrorEvent("error", { cancelable: true }));
    assert.equal(device.closes, 0);
    catches = false;
    dispatchEvent(new ErrorEvent("error", { cancelable: true }));
    assert.equal(device.closes, 1);
    await tunnel.closed;
  } finally {
    removeEventListener("error", listener);
  }
});

Deno.test("Tunnel.stats keep what was counted before run()", async () => {
  const { tunnel, device, far } = await openManual();
  for (let i = 0; i < 1030; i++) assert.equal(tunnel.send(Uint8Array.of(1, 2)), i < 1024);
  far.host.refuse(3, "not an IP packet");
  device.host.refuse(4, "receive queue full");
  const before = tunnel.stats;
  assert.deepEqual(before.dropped, {
    "send queue full": 6,
    "not an IP packet": 1,
    "receive queue full": 1,
  });
  assert.deepEqual([before.inbound.packetsIn, before.inbound.bytesIn], [1031, 2063]);
  assert.deepEqual([before.outbound.packetsIn, before.outbound.bytesIn], [1, 4]);
  assert.equal(before.queued, 1024);
  assertBalanced(tunnel);

  const run = tunnel.run();
  const { stages } = tunnel.stats;
  assert.deepEqual(tunnel.stats, { ...before, stages });
  await device.wrote(1024);
  assert.deepEqual(tunnel.stats, {
    ...before,
    stages,
    inbound: { ...before.inbound, packetsOut: 1024, bytesOut: 2048 },
    queued: 0,
  });
  tunnel.close();
  await run;
  assertNothingLeft(tunnel);
});

Deno.test("Tunnel.stats count as closed what a tunnel that never ran had still to send", async () => {
  const { tunnel } = await openManual();
  tunnel.send(Uint8Array.of(1));
  tunnel.send(Uint8Array.of(2));
  await tunnel[Symbol.asyncDispose]();
  assert.deepEqual(tunnel.stats.dropped, { closed: 2 });
  assertNothingLeft(tunnel);
});

Deno.test("Tunnel gives back what waits for ends that take nothing, when it is closed", async () => {
  const { tunnel, device, far } = await openManual();
  [device.room, far.room] = [0, 0];
  device.come(1, 2, 3);
  far.come(4, 5);
  const run = tunnel.run();
  do await far.touched(); while (tunnel.stats.queued < 5);
  tunnel.close();
  await run;
  assert.deepEqual(tunnel.stats.dropped, { closed: 5 });
  assert.equal(currentLoop().pool.taken, 0);
  assertNothingLeft(tunnel);
});
