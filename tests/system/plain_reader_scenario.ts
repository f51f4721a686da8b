/**
 * A program that knows no super-packets: it attaches to a TUN device as it is, and prints the length of each datagram
 * that reaches it, and whether its checksum is right. It sends them itself, several in a message.
 */

import { libc } from "../../driver/linux/libc.ts";
import { openUdpSocket, openWaiter } from "../../driver/mod.ts";
import { parseAddress } from "../../lib/wire/address.ts";
import { type Packet, PacketPool } from "../../lib/core/mod.ts";
import { Udp } from "../../lib/wire/udp.ts";
import { openPlainTun } from "../kit/plain_tun.ts";

// Implementation
const PORT = 4500;
const LENGTH = 1000;
const COUNT = 4;
/** The kernel starts to hand over packets some time after a program has attached. */
const ATTEMPTS = 100;
const ATTEMPT_MILLISECONDS = 50;
const LONGEST = 65_535;

/** A datagram that the reader received. */
export interface Datagram {
  /** Length of the packet (bytes). */
  readonly length: number;
  /** True if its checksum is right. */
  readonly right: boolean;
}

async function read(name: string, address: string): Promise<Datagram[]> {
  const fd = openPlainTun(name);
  using socket = await openUdpSocket({ address: parseAddress("0.0.0.0") });
  using waiter = await openWaiter();
  const pool = new PacketPool({ small: 2 * COUNT, large: 1 });
  socket.attach(pool, LENGTH);
  const endpoint = socket.endpoint(parseAddress(address), PORT);
  const bytes = new Uint8Array(LONGEST);
  const datagrams: Datagram[] = [];
  for (let attempt = 0; attempt < ATTEMPTS && datagrams.length === 0; attempt++) {
    const packets = Array.from({ length: COUNT }, () => pool.take(LENGTH)!);
    for (const packet of packets) packet.endpoint.set(endpoint);
    socket.send(packets, 0, COUNT);
    for (const packet of packets) pool.give(packet);
    waiter.clear();
    waiter.add(fd, true, false);
    waiter.wait(ATTEMPT_MILLISECONDS);
    for (let length; (length = libc().readInto(fd, bytes, BigInt(LONGEST))) > 0;) {
      const packet = pool.from(bytes.subarray(0, length))!;
      const datagram = judge(packet);
      if (datagram !== undefined) datagrams.push(datagram);
      pool.give(packet);
    }
  }
  return datagrams;
}

/** Reads a datagram; `undefined` for the kernel's own packets, such as router solicitations. */
function judge(packet: Packet): Datagram | undefined {
  const udp = Udp.of(packet);
  if (udp?.dstPort !== PORT) return undefined;
  return { length: packet.length, right: udp.checksumValid };
}

const [name, address] = Deno.args;
console.log(JSON.stringify(await read(name!, address!)));
