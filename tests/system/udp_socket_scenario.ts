/** What tests of UDP sockets do in a namespace: a scenario by its name, whose result is printed as JSON. */

import { openUdpSocket, openWaiter, type UdpSocket } from "../../driver/mod.ts";
import { parseAddress } from "../../lib/address.ts";
import { PacketBatch, PacketPool } from "../../lib/core/mod.ts";

/** Where the scenarios send to, and which port receives. */
const PORT = 4500;
const COUNT = 64;
const LENGTH = 1400;

/** What `slow` saw. */
export interface Slow {
  /** How many datagrams the first call sent, and how many calls it took for all. */
  readonly first: number;
  readonly calls: number;
  /** What the system refused with. */
  readonly refusals: (string | null)[];
  /** Whether each wait for room ended with room. */
  readonly ready: boolean[];
}

function batchTo(socket: UdpSocket, pool: PacketPool, address: string): PacketBatch {
  const batch = new PacketBatch();
  const to = socket.endpoint(parseAddress(address), PORT);
  for (let i = 0; i < COUNT; i++) {
    const packet = pool.take(LENGTH)!;
    packet.endpoint.set(to);
    batch.push(packet);
  }
  return batch;
}

/** Sends over a slow link with a short buffer, and waits for room as the loop does. */
async function slow(address: string): Promise<Slow> {
  using socket = await openUdpSocket({ address: parseAddress("0.0.0.0"), sendBuffer: 8192 });
  using waiter = await openWaiter();
  const pool = new PacketPool({ small: COUNT, large: 0 });
  socket.attach(pool, LENGTH);
  const { packets } = batchTo(socket, pool, address);
  const [refusals, ready]: [Slow["refusals"], boolean[]] = [[], []];
  const first = socket.send(packets, 0, COUNT);
  let calls = 1;
  for (let done = first; done < COUNT; calls++) {
    refusals.push(socket.refusal ?? null);
    waiter.clear();
    waiter.add(socket.waitable!, false, true);
    ready.push(waiter.wait(5000));
    done += socket.send(packets, done, COUNT);
  }
  return { first, calls, refusals, ready };
}

/** Receives by one interface alone; how many datagrams came of those sent before. */
async function kept(name: string): Promise<number> {
  using socket = await openUdpSocket({ address: parseAddress("0.0.0.0"), port: PORT, interface: name });
  using waiter = await openWaiter();
  socket.attach(new PacketPool(), LENGTH);
  console.error("ready");
  const batch = new PacketBatch();
  waiter.add(socket.waitable!, true, false);
  waiter.wait(5000);
  return socket.receive(batch);
}

if (import.meta.main) {
  const [scenario, argument] = Deno.args;
  console.log(JSON.stringify(await (scenario === "slow" ? slow : kept)(argument!)));
}
