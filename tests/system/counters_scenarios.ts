/**
 * What tests of the counters do in processes of their own:
 *
 *     send ──► numbered datagrams ──► tunnel: does by number ──► receive
 *       ▲                                │
 *       └──────────── replies ───────────┘
 */

import { Buffer } from "node:buffer";
import { createSocket, type Socket } from "node:dgram";
import type { DeviceStatistics, Packet, PacketBatch, Stage, StageContext } from "../../lib/core/mod.ts";
import { Direction, type TunnelStats } from "../../lib/core/mod.ts";
import { Udp } from "../../lib/wire/udp.ts";
import { device, openTunnel, type Tunnel, Verdict } from "../../runtime/mod.ts";

/** What becomes of a datagram: its number modulo 5. */
export const Fate = { Drop: 0, Reply: 1, Pass: 2, Hold: 3, Stage: 4 } as const;
/** The last datagram, which is replied to. */
export const END = 0xffff_ffff;
/** Where the datagrams go. */
export const PORT = 9000;

// Implementation
const FATES = 5;
const HOLD_MILLISECONDS = 3;
/** After so many packets the tunnel stops for a while, so that the kernel's queue overflows. */
const STALL_EVERY = 2000;
const STALL_MILLISECONDS = 20;
const SAMPLE_MILLISECONDS = 1;
/** Every so many packets, the counters are looked at from inside the handler. */
const LOOK_EVERY = 97;
const REST_MILLISECONDS = 50;
const RETRY_MILLISECONDS = 500;
const SENDING = 64;
const SOCKET_BUFFER = 4 << 20;

/** What the tunnel saw and counted. */
export interface Seen {
  /** The tunnel's counters. */
  readonly stats: TunnelStats;
  /** The kernel's, of its device and of its far end. */
  readonly devices: DeviceStatistics[];
  /** How many datagrams had each fate. */
  readonly fates: number[];
  /** How many were the last one; and how many packets were none of ours. */
  readonly ends: number;
  /** Packets that are not the test's: the kernel's own. */
  readonly others: number;
  /** How often a number was not higher than the one before. */
  readonly disordered: number;
  /** Looks at the counters, from outside and from inside the handler; the most packets queued at one. */
  readonly looks: { outside: number; inside: number; mostQueued: number };
  /** The first of each at which they did not add up. */
  readonly wrong: { where: string; stats: TunnelStats }[];
}

/** What was sent, and which replies came. */
export interface Sent {
  /** Datagrams, with the last one each time. */
  readonly sent: number;
  /** How often the last one was sent. */
  readonly ends: number;
  /** What the system refused to send. */
  readonly refused: number;
  /** How many replies had each fate as their number says. */
  readonly replies: number[];
  /** Replies to the last one. */
  readonly endReplies: number;
  /** Numbers that came twice. */
  readonly doubled: number;
}

/** What arrived behind the tunnel. */
export interface Received {
  /** How many datagrams had each fate as their number says. */
  readonly fates: number[];
  /** Numbers that came twice. */
  readonly doubled: number;
  /** How often a number of one fate was not higher than the one before. */
  readonly disordered: number;
}

function isBalanced({ outbound, inbound, created, consumed, dropped, queued }: TunnelStats): boolean {
  const lost = Object.values(dropped).reduce((sum, count) => sum + count, 0);
  return outbound.packetsIn + inbound.packetsIn + created ===
    outbound.packetsOut + inbound.packetsOut + consumed + lost + queued;
}

/** Holds some packets for a while and drops others. */
class Sorter implements Stage {
  readonly name = "sorter";
  #held: Packet[] = [];

  outbound({ packets, length }: PacketBatch, context: StageContext): void {
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const number = numberOf(packet);
      if (number === undefined || number === END) continue;
      if (number % FATES === Fate.Stage) context.drop(packet, "by number");
      else if (number % FATES === Fate.Hold) {
        context.hold(packet);
        this.#held.push(packet);
      }
    }
  }

  tick(context: StageContext): number {
    const due = this.#held.findIndex(({ time }) => time > context.now - HOLD_MILLISECONDS);
    const ready = this.#held.splice(0, due < 0 ? this.#held.length : due);
    for (const packet of ready) context.emit(packet, Direction.Outbound);
    return 1;
  }
}

function numberOf(packet: Packet): number | undefined {
  const udp = Udp.of(packet);
  if (udp === undefined || udp.dstPort !== PORT && udp.srcPort !== PORT) return undefined;
  return packet.view.getUint32(udp.payloadOffset);
}

async function tunnel(): Promise<void> {
  const fates = new Array<number>(FATES).fill(0);
  const wrong: Seen["wrong"] = [];
  const looks = { outside: 0, inside: 0, mostQueued: 0 };
  let [ends, others, disordered, last, packets] = [0, 0, 0, -1, 0];
  await using tunnel: Tunnel = await openTunnel({
    name: "left",
    // The kernel counts what is handed to it together as one packet.
    linux: { txQueueLength: 64, offload: false },
    far: device({ name: "right", linux: { offload: false } }),
    stages: [{
      name: "count",
      outbound({ packets, length }) {
        for (let i = 0; i < length; i++) {
          const number = numberOf(packets[i]!);
          if (number === undefined) others++;
          else if (number === END) ends++;
          else {
            fates[number % FATES]!++;
            if (number <= last) disordered++;
            last = number;
          }
        }
      },
    }, new Sorter()],
  });
  const look = (where: "outside" | "inside"): void => {
    const { stats } = tunnel;
    looks[where]++;
    looks.mostQueued = Math.max(looks.mostQueued, stats.queued);
    if (!isBalanced(stats) && !wrong.some((one) => one.where === where)) wrong.push({ where, stats });
  };
  const seen = (): Seen => {
    const devices = [tunnel.device, tunnel.far as Tunnel["device"]].flatMap((end) => end.statistics() ?? []);
    return { stats: tunnel.stats, devices, fates, ends, others, disordered, looks, wrong };
  };
  const sampling = setInterval(() => look("outside"), SAMPLE_MILLISECONDS);
  let rest = "";
  const resting = setInterval(() => {
    const now = JSON.stringify(tunnel.stats);
    if (ends > 0 && now === rest) {
      clearInterval(resting);
      clearInterval(sampling);
      console.log(`rest ${JSON.stringify(seen())}`);
    }
    rest = now;
  }, REST_MILLISECONDS);
  const run = tunnel.run(function byNumber(packet) {
    if (++packets % LOOK_EVERY === 0) look("inside");
    if (packets % STALL_EVERY === 0) stall();
    const number = numberOf(packet);
    if (number === undefined) return Verdict.Drop;
    if (number !== END) {
      if (number % FATES === Fate.Drop) return Verdict.Drop;
      if (number % FATES !== Fate.Reply) return Verdict.Pass;
    }
    const udp = Udp.of(packet)!;
    udp.ip.swap();
    udp.swapPorts();
    return Verdict.Reply;
  });
  console.log("ready");
  await run;
  clearInterval(sampling);
  clearInterval(resting);
  console.log(`closed ${JSON.stringify(seen())}`);
}

function stall(): void {
  const until = performance.now() + STALL_MILLISECONDS;
  while (performance.now() < until);
}

async function openSocket(port: number): Promise<Socket> {
  const socket = createSocket("udp4");
  await new Promise<void>((resolve) => socket.bind(port, "0.0.0.0", resolve));
  socket.setRecvBufferSize(SOCKET_BUFFER);
  return socket;
}

async function send(count: number, destination: string): Promise<void> {
  const socket = await openSocket(0);
  const replies = new Array<number>(FATES).fill(0);
  const came = new Set<number>();
  let [sent, refused, ends, endReplies, doubled] = [0, 0, 0, 0, 0];
  let answered = (): void => {};
  socket.on("message", (message) => {
    const number = message.readUInt32BE();
    if (number === END) {
      endReplies++;
      answered();
      return;
    }
    if (came.has(number)) doubled++;
    came.add(number);
    replies[number % FATES]!++;
  });
  const post = (number: number): Promise<void> => {
    const message = Buffer.alloc(12);
    message.writeUInt32BE(number);
    return new Promise((resolve) =>
      socket.send(message, PORT, destination, (error) => {
        if (error === null) sent++;
        else refused++;
        resolve();
      })
    );
  };
  // Deno sends what waits for a new socket in the wrong order.
  await post(0);
  for (let number = 1; number < count; number += SENDING) {
    const numbers = Array.from({ length: Math.min(SENDING, count - number) }, (_, i) => number + i);
    await Promise.all(numbers.map(post));
  }
  // The kernel may drop this one, too; a second one must not come after the answer to the first.
  let retry: ReturnType<typeof setInterval> | undefined;
  await new Promise<void>((resolve) => {
    answered = resolve;
    retry = setInterval(() => {
      ends++;
      post(END);
    }, RETRY_MILLISECONDS);
  });
  clearInterval(retry);
  socket.close();
  console.log(JSON.stringify({ sent, ends, refused, replies, endReplies, doubled } satisfies Sent));
}

async function receive(): Promise<void> {
  const socket = await openSocket(PORT);
  const fates = new Array<number>(FATES).fill(0);
  const last = new Array<number>(FATES).fill(-1);
  const came = new Set<number>();
  let [doubled, disordered] = [0, 0];
  socket.on("message", (message) => {
    const number = message.readUInt32BE();
    const fate = number % FATES;
    if (came.has(number)) doubled++;
    else if (number <= last[fate]!) disordered++;
    came.add(number);
    last[fate] = number;
    fates[fate]!++;
  });
  console.log("ready");
  await new Promise<void>((resolve) => Deno.addSignalListener("SIGINT", resolve));
  // What has arrived is read first.
  for (let before = -1; before !== came.size;) {
    before = came.size;
    await new Promise((resolve) => setTimeout(resolve, REST_MILLISECONDS));
  }
  console.log(`received ${JSON.stringify({ fates, doubled, disordered } satisfies Received)}`);
  Deno.exit();
}

if (import.meta.main) {
  const [scenario, count, destination] = Deno.args;
  if (scenario === "tunnel") await tunnel();
  else if (scenario === "send") await send(Number(count), destination!);
  else await receive();
}
