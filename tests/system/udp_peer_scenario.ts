/** What tests of UDP transports do in a namespace: a scenario by its name, whose result is printed as JSON. */

import { openWaiter } from "../../driver/mod.ts";
import { PacketBatch } from "../../lib/core/mod.ts";
import { udp } from "../../runtime/transport/udp.ts";
import type { UdpTransport } from "../../runtime/transport/udp_transport.ts";
import { numbered } from "../conformance/end.ts";
import { TestHost } from "../kit/host.ts";

/** How long to wait for one reply (milliseconds). */
const TIMEOUT = 400;

/** What `ask` saw. */
export interface Asked {
  /** For each packet, whether its reply came. */
  readonly replies: boolean[];
  /** The peer's address in the end. */
  readonly peer: string | undefined;
  /** What was refused. */
  readonly refused: Record<string, number>;
  /** What was dropped. */
  readonly dropped: Record<string, number>;
}

/** Reads what comes within some time. */
function read(end: UdpTransport, waiter: Awaited<ReturnType<typeof openWaiter>>, batch: PacketBatch): number {
  const deadline = performance.now() + TIMEOUT;
  for (let count = 0;;) {
    count += end.read(batch);
    const rest = deadline - performance.now();
    if (count > 0 || rest <= 0) return count;
    waiter.clear();
    waiter.add(end.waits[0]!.waitable!, true, false);
    waiter.wait(rest);
  }
}

/** Sends everything back where it came from, until it is killed. */
async function echo(listen: string): Promise<void> {
  using end = await udp({ listen })();
  using waiter = await openWaiter();
  end.attach(new TestHost());
  console.error("ready");
  for (const batch = new PacketBatch();;) {
    read(end, waiter, batch);
    end.write(batch);
  }
}

/** Sends packets one after the other, each when the reply to the one before has come, or has not come in time. */
async function ask(peer: string, count: string): Promise<Asked> {
  using end = await udp({ peer })();
  using waiter = await openWaiter();
  const host = new TestHost();
  end.attach(host);
  const replies: boolean[] = [];
  for (let i = 0; i < Number(count); i++) {
    const batch = new PacketBatch();
    batch.push(numbered(host.pool, i));
    end.write(batch);
    replies.push(read(end, waiter, batch) > 0);
    for (const packet of batch) packet.pool.give(packet);
    // Timers and look-ups have their turn.
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  return { replies, peer: end.peer, refused: host.refused, dropped: host.dropped };
}

if (import.meta.main) {
  const [scenario, ...args] = Deno.args;
  const run = { echo, ask }[scenario!]! as (...args: string[]) => Promise<unknown>;
  console.log(JSON.stringify(await run(...args)));
}
