/** Faulty ends of a script: the tunnel ends at once, with an error that names them. */

import assert from "node:assert/strict";
import { type EndHost, type Packet, PacketBatch, PacketPool, type TunnelEnd } from "../../../lib/core/mod.ts";
import { Mirror } from "../../../lib/stage/observe/mirror.ts";
import { Switchboard } from "../../../lib/end/switchboard.ts";
import { currentLoop } from "../../../runtime/engine/loop.ts";
import { openTunnel } from "../../../runtime/mod.ts";
import { assertNothingLeft, ManualEnd, QUIET } from "../../kit/tunnel.ts";

function give(packets: Iterable<Packet>): void {
  for (const packet of [...packets]) packet.pool.give(packet);
}

type Write = (batch: PacketBatch) => number;
/** Each gets three packets. */
const WRITES: Record<string, [write: Write, told: RegExp]> = {
  "returns a count and takes nothing": [(batch) => batch.length, /returned 3 and took 0 of 3 packets/],
  "gives packets back and leaves them in the batch": [
    (batch) => (give(batch), batch.length),
    /gave packets away that it left in the batch/,
  ],
  "takes more than it says": [
    (batch) => (give(batch), batch.shift(3), 1),
    /returned 1 and took 3 of 3 packets/,
  ],
  "takes some and returns nothing": [
    (batch) => (give(batch), batch.shift(3), undefined as unknown as number),
    /returned undefined and took 3/,
  ],
  "takes others off the batch": [
    (batch) => {
      give(batch.packets.slice(1, 3));
      batch.shift(2);
      return 2;
    },
    /gave packets away that it left in the batch/,
  ],
  "shortens the batch instead": [
    (batch) => {
      give(batch.packets.slice(0, 2));
      batch.length -= 2;
      return 2;
    },
    /gave packets away that it left in the batch/,
  ],
  "gives one back twice": [
    (batch) => {
      const packet = batch.packets[0]!;
      batch.shift(1);
      give([packet, packet]);
      return 1;
    },
    /its write threw: Cannot give back a packet: it is free already/,
  ],
  "puts packets into the batch": [
    (batch) => (batch.push(batch.packets[0]!.pool.take(1)!), -1),
    /gave packets away|returned -1/,
  ],
  throws: [
    () => {
      throw new Error("no cable");
    },
    /its write threw: no cable/,
  ],
};

/** An end whose write is a function of the test. */
class LyingEnd implements TunnelEnd {
  readonly name = "liar";
  readonly waits = [{ waitable: undefined }];
  readonly queued = 0;
  readonly failure = undefined;
  host: EndHost | undefined;

  constructor(readonly write: Write, readonly read: (batch: PacketBatch) => number = () => 0) {
  }

  attach(host: EndHost): void {
    this.host = host;
  }

  close(): void {
  }

  [Symbol.dispose](): void {
  }
}

for (const [what, [write, told]] of Object.entries(WRITES)) {
  Deno.test(`Tunnel ends with the name of a far end whose write ${what}`, async () => {
    const device = new ManualEnd();
    const tunnel = await openTunnel({ device, far: new LyingEnd(write), ...QUIET });
    const running = tunnel.run();
    device.come(1, 2, 3);
    const error = await running.then(() => undefined, (error: Error) => error);
    assert.match(error!.message, /Cannot write to "liar": /);
    assert.match(error!.message, told);
    // What an end takes and keeps is its own.
    for (const packet of currentLoop().pool.packets) if (packet.owner instanceof PacketBatch) give([packet]);
    assertNothingLeft(tunnel);
  });
}

for (
  const [where, stageOrFar] of [
    ["a mirror", (end: TunnelEnd) => ({ stages: [new Mirror(end)], far: new ManualEnd("far") })],
    ["a switchboard", (end: TunnelEnd) => ({ far: new Switchboard([end]), stages: [toFirst] })],
  ] as const
) {
  Deno.test(`Tunnel ends with the name of a lying end behind ${where}`, async () => {
    const device = new ManualEnd();
    const end = new LyingEnd((batch) => batch.length);
    const tunnel = await openTunnel({ device, ...stageOrFar(end), ...QUIET });
    const running = tunnel.run();
    device.come(1, 2, 3);
    await assert.rejects(running, /Cannot write to "liar": its write returned 3 and took 0 of 3/);
    assertNothingLeft(tunnel);
  });
}

Deno.test("Tunnel ends with the name of a lying device", async () => {
  const device = new ManualEnd("liar");
  const far = new ManualEnd("far");
  device.write = (batch) => batch.length;
  const tunnel = await openTunnel({ device, far, ...QUIET });
  const running = tunnel.run();
  far.come(1, 2, 3);
  await assert.rejects(running, /Cannot write to "liar": its write returned 3 and took 0 of 3/);
  assertNothingLeft(tunnel);
});

function toFirst(packet: Packet): undefined {
  packet.to = 1;
}

const foreign = new PacketPool({ small: 3, large: 0 });
const READS: Record<string, [read: (end: LyingEnd, batch: PacketBatch) => number, told: RegExp]> = {
  "gives packets of another pool": [
    (_, batch) => (batch.push(foreign.take(20)!), 1),
    /^.*Cannot read from "liar": it returned packets of another pool/,
  ],
  "gives a packet twice": [
    (end, batch) => {
      const packet = end.host!.pool.take(20)!;
      batch.push(packet);
      batch.push(packet);
      return 2;
    },
    /Cannot read from "liar": its read threw: Cannot add a packet to a batch: it is in the batch already/,
  ],
  "gives a packet that it gave back": [
    (end, batch) => {
      const packet = end.host!.pool.take(20)!;
      give([packet]);
      batch.push(packet);
      return 1;
    },
    /Cannot read from "liar": its read threw: Cannot add a packet to a batch: it is free/,
  ],
};

for (const [what, [read, told]] of Object.entries(READS)) {
  Deno.test(`Tunnel ends with the name of a far end whose read ${what}`, async () => {
    const device = new ManualEnd();
    const end: LyingEnd = new LyingEnd(() => 0, (batch) => read(end, batch));
    const tunnel = await openTunnel({ device, far: end, ...QUIET });
    await assert.rejects(tunnel.run(), told);
    assertNothingLeft(tunnel);
    assert.equal(foreign.taken, 0);
  });
}

const PARTS: [part: string, value: unknown, told: RegExp][] = [
  ["name", undefined, /^Cannot use an end: name must be a string, got undefined$/],
  [
    "attach",
    5,
    /attach must be a function, got 5$|far must be a URL, an end or an opener of one, got an object$/,
  ],
  ["read", undefined, /^Cannot use end "liar": read must be a function, got undefined$/],
  ["write", null, /^Cannot use end "liar": write must be a function, got null$/],
  ["close", undefined, /^Cannot use end "liar": close must be a function, got undefined$/],
  ["waits", undefined, /^Cannot use end "liar": waits must be an array, got undefined$/],
  ["waits", [], /^Cannot use end "liar": waits must have at least one element$/],
  ["waits", [null], /^Cannot use end "liar": waits\[0\] must be an object, got null$/],
  ["waits", [{ waitable: 5n }], /^Cannot use end "liar": waits\[0\].waitable must be a number, got 5n$/],
];

for (const [part, value, told] of PARTS) {
  Deno.test(`A tunnel, a switchboard and a mirror refuse an end whose ${part} is ${Deno.inspect(value)}`, async () => {
    const end = Object.defineProperty(new LyingEnd(() => 0), part, { value });
    const device = new ManualEnd();
    const opened = () => openTunnel({ device, far: end, ...QUIET });
    const { warn } = console;
    console.warn = () => {}; // an end without a close cannot be closed
    try {
      await assert.rejects(opened, { name: "TypeError", message: told });
    } finally {
      console.warn = warn;
    }
    for (const create of [() => new Switchboard([end]), () => new Mirror(end)]) {
      assert.throws(create, { name: "TypeError", message: told });
    }
  });
}
