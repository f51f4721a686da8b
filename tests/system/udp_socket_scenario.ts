/** Scenarios of the UDP socket tests, run in a namespace by name; each prints its result as JSON. */

import { openUdpSocket, openWaiter, type UdpSocket } from "../../driver/mod.ts";
import { parseAddress } from "../../lib/wire/address.ts";
import { PacketBatch, PacketPool } from "../../lib/core/mod.ts";

/** Destination of the scenarios, and the port that receives. */
const PORT = 4500;
const COUNT = 64;
const LENGTH = 1400;

/** Result of `slow`. */
export interface Slow {
  /** Datagrams that the first call sent, and calls for all of them. */
  readonly first: number;
  readonly calls: number;
  /** Name of the system's error. */
  readonly refusals: (string | null)[];
  /** True if each wait for room ended with room. */
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

/** Receives by one interface; returns how many of the datagrams sent before arrived. */
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

/** Lengths with runs of equal ones, alternately longer and shorter than the run before. */
export const LENGTHS: readonly number[] = [
  ...new Array(20).fill(1400),
  900,
  ...new Array(7).fill(1400),
  1401,
  ...new Array(12).fill(1399),
  100,
  100,
  1,
  ...new Array(20).fill(700),
];

/** Sends datagrams of these lengths, numbered in their first byte, every fifth of the last ones to another port. */
async function send(address: string): Promise<number> {
  const to = parseAddress(address);
  using socket = await openUdpSocket({ address: parseAddress(to.family === 4 ? "0.0.0.0" : "::") });
  const pool = new PacketPool({ small: LENGTHS.length, large: 0 });
  socket.attach(pool, LENGTH);
  const packets = LENGTHS.map((length, i) => {
    const packet = pool.take(length)!;
    packet.bytes.fill(i, packet.offset, packet.offset + length);
    packet.endpoint.set(socket.endpoint(to, isElsewhere(i) ? PORT + 1 : PORT));
    return packet;
  });
  return socket.send(packets, 0, packets.length);
}

/** Reports whether the datagram of this number goes to another port. */
export function isElsewhere(number: number): boolean {
  return number >= 44 && number % 5 === 0;
}

/** Receives the datagrams that `send` sends to its port: numbers and lengths. */
async function receive(address: string): Promise<[number: number, length: number][]> {
  using socket = await openUdpSocket({ address: parseAddress(address), port: PORT });
  using waiter = await openWaiter();
  socket.attach(new PacketPool(), 2 * LENGTH);
  console.error("ready");
  const got: [number, number][] = [];
  const count = LENGTHS.filter((_, i) => !isElsewhere(i)).length;
  for (let rest = true; rest && got.length < count;) {
    waiter.clear();
    waiter.add(socket.waitable!, true, false);
    rest = waiter.wait(3000);
    const batch = new PacketBatch();
    socket.receive(batch);
    for (const packet of batch) {
      const { data } = packet;
      got.push([data.every((byte) => byte === data[0]) ? data[0]! : -1, data.length]);
      packet.pool.give(packet);
    }
  }
  return got;
}

if (import.meta.main) {
  const [scenario, argument] = Deno.args;
  const run = { slow, kept, send, receive }[scenario!]!;
  console.log(JSON.stringify(await run(argument!)));
}
