/**
 * The process in which `stages` measures: without any permission, and with `--v8-flags=--expose-gc`. It prints
 * {@linkcode StagesFigures} as JSON.
 *
 * Packets go in circles, through the public API alone. For stages, two tunnels and two pairs of devices:
 *
 *     ┌── device ◄─ tunnel measured ◄─ far end ◄─┐
 *     └─► far end ─► the other one ─► device ────┘
 *
 * For surfaces, which take the place of a far end, one pair; both tunnels turn every packet round:
 *
 *     device ─► surface measured ─► device ─► the other tunnel ─► device ...
 */

import { cpuUsage } from "node:process";
import { Direction, openTunnel, type PacketHandler, type Tunnel, Verdict, VpnEnd } from "@warren/tunnel";
import type { VpnProtocol } from "@warren/tunnel";
import { type PacketBatch, PacketPool, type Stage } from "@warren/tunnel/core";
import { Ipv4 } from "@warren/tunnel/ipv4";
import { MemoryDevice } from "@warren/tunnel/memory";
import { Udp } from "@warren/tunnel/udp";
import { otherStages } from "./_other_stages.ts";

// Implementation
/** Packets in a circle: a full batch, which stays together. */
const PACKETS = 64;
const PAYLOAD_BYTES = 64;
const PROTOCOL_UDP = 17;
const LOOK_MILLISECONDS = 10;
const STUCK_MILLISECONDS = 10_000;
const WARM_UP_PACKETS = 200_000;
const HEAP_PACKETS = 10_000_000;
/** What costs microseconds is measured with fewer packets. */
const SLOW: Record<string, number> = { streams: 0.1 };
const QUIET = { watchdog: 0, signals: false } as const;

/** What the process prints. */
export interface StagesFigures {
  /** Nanoseconds that a packet costs with each variant, one figure a round. */
  readonly cost: Record<string, number[]>;
  /** How much the heap grew for each packet (bytes). */
  readonly heapBytesPerPacket: number;
}

/** Packets in a circle. */
interface Circle extends AsyncDisposable {
  /** The tunnel that is measured. */
  readonly tunnel: Tunnel;
}

const rewrite: PacketHandler = (packet) => {
  const udp = Udp.of(packet);
  if (udp === undefined) return Verdict.Drop;
  udp.ip.ttl = 63;
};

const decrementTtl: PacketHandler = (packet) => {
  const ip = Ipv4.of(packet);
  if (ip === undefined) return Verdict.Drop;
  // 255 follows 0: nothing here drops what has gone round too often.
  ip.ttl--;
};

const rewritePort: PacketHandler = (packet) => {
  const udp = Udp.of(packet);
  if (udp === undefined) return Verdict.Drop;
  udp.dstPort ^= 1;
};

const rewriteService: PacketHandler = (packet) => {
  const ip = Ipv4.of(packet);
  if (ip === undefined) return Verdict.Drop;
  ip.dscp = ip.ecn === 0 ? 46 : 0;
};

class TtlStage implements VpnProtocol {
  readonly name = "ttl";
  readonly overhead = 0;
  outbound(batch: PacketBatch): void {
    for (let i = 0; i < batch.length; i++) {
      const ip = Ipv4.of(batch.packets[i]!);
      if (ip !== undefined) ip.ttl--;
    }
  }
  inbound(batch: PacketBatch): void {
    this.outbound(batch);
  }
}

class PortStage implements Stage {
  readonly name = "port";
  outbound(batch: PacketBatch): void {
    for (let i = 0; i < batch.length; i++) {
      const udp = Udp.of(batch.packets[i]!);
      if (udp !== undefined) udp.dstPort ^= 1;
    }
  }
  inbound(batch: PacketBatch): void {
    this.outbound(batch);
  }
}

class ServiceStage implements Stage {
  readonly name = "service";
  outbound(batch: PacketBatch): void {
    for (let i = 0; i < batch.length; i++) {
      const ip = Ipv4.of(batch.packets[i]!);
      if (ip !== undefined) ip.dscp = ip.ecn === 0 ? 46 : 0;
    }
  }
  inbound(batch: PacketBatch): void {
    this.outbound(batch);
  }
}

const turnRound: PacketHandler = (_packet, context) =>
  context.direction === Direction.Outbound ? Verdict.Reply : Verdict.Pass;

const VARIANTS: Record<string, () => Promise<Circle>> = {
  "bare": () => circle([]),
  "handler": () => circle([], rewrite),
  "one stage": () => circle([new TtlStage()]),
  "VPN end": () => circle([], undefined, new TtlStage()),
  "three stages": () => circle([new TtlStage(), new PortStage(), new ServiceStage()]),
  "three handlers": () => circle([decrementTtl, rewritePort, rewriteService]),
  "run": () => turning((tunnel) => tunnel.run(turnRound)),
  "for await": () =>
    turning(async (tunnel) => {
      for await (const batch of tunnel) {
        for (const packet of batch) tunnel.send(packet);
      }
    }),
  "streams": () => turning((tunnel) => tunnel.readable.pipeTo(tunnel.writable)),
};

/** Stages between two pairs of devices, or a VPN protocol over the second one. */
async function circle(
  stages: (Stage | PacketHandler)[],
  handler?: PacketHandler,
  protocol?: VpnProtocol,
): Promise<Circle> {
  const [device, around] = MemoryDevice.pair();
  const [below, back] = MemoryDevice.pair({ payload: "any" });
  const far = protocol === undefined ? below : new VpnEnd(protocol, below);
  const tunnel = await openTunnel({ device, far, stages, ...QUIET });
  const other = await openTunnel({ device: back, far: around, ...QUIET });
  const ends = [tunnel.run(handler), other.run()];
  for (let i = 0; i < PACKETS; i++) tunnel.send(datagram());
  return { tunnel, [Symbol.asyncDispose]: () => end([tunnel, other], ends) };
}

/** A surface that turns packets round. */
async function turning(surface: (tunnel: Tunnel) => Promise<void>): Promise<Circle> {
  const [device, around] = MemoryDevice.pair();
  const tunnel = await openTunnel({ device, ...QUIET });
  const other = await openTunnel({ device: around, ...QUIET });
  const ends = [surface(tunnel), other.run(turnRound)];
  for (let i = 0; i < PACKETS; i++) other.send(datagram());
  return { tunnel, [Symbol.asyncDispose]: () => end([tunnel, other], ends) };
}

async function end(tunnels: Tunnel[], ends: Promise<void>[]): Promise<void> {
  for (const tunnel of tunnels) tunnel.close();
  // The second one fails, since its device lost the other; a pipe fails when its tunnel closes.
  await Promise.allSettled([...ends, ...tunnels.map((tunnel) => tunnel.closed)]);
}

function datagram(): Uint8Array {
  const packet = new PacketPool({ small: 1, large: 0 }).take(PAYLOAD_BYTES)!;
  packet.data.fill(0xa5);
  Udp.encode(packet, { srcPort: 5000, dstPort: 6000 });
  Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a09004d, protocol: PROTOCOL_UDP });
  return packet.data;
}

function passed({ tunnel }: Circle): number {
  const { inbound, outbound } = tunnel.stats;
  return Math.max(inbound.packetsIn, outbound.packetsIn);
}

/** Processor time of this process (nanoseconds): what others do on this machine is not in it. */
function processorTime(): number {
  const { user, system } = cpuUsage();
  return (user + system) * 1000;
}

/** Lets so many packets go round; returns what one cost (nanoseconds). */
async function turns(circle: Circle, packets: number): Promise<number> {
  const first = passed(circle);
  const start = processorTime();
  let count = 0;
  let seen = performance.now();
  for (let last = 0; count < packets; last = count) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_MILLISECONDS));
    count = passed(circle) - first;
    if (count > last) seen = performance.now();
    else if (performance.now() - seen > STUCK_MILLISECONDS) {
      throw new Error(`Cannot measure: nothing goes round: ${JSON.stringify(circle.tunnel.stats)}`);
    }
  }
  return (processorTime() - start) / count;
}

async function growth(packets: number): Promise<number> {
  await using mixed = await circle([decrementTtl, rewritePort, rewriteService], rewrite, new TtlStage());
  await turns(mixed, WARM_UP_PACKETS);
  const before = heap();
  await turns(mixed, packets);
  return Math.max(0, heap() - before) / packets;
}

function heap(): number {
  const { gc } = globalThis as { gc?: () => void };
  if (gc === undefined) throw new Error("Cannot measure the heap: start deno with --v8-flags=--expose-gc");
  gc();
  return Deno.memoryUsage().heapUsed;
}

const [rounds = 1, packets = 1_000_000] = Deno.args.map(Number);
for (const stage of otherStages()) {
  await using other = await circle([stage]);
  await turns(other, WARM_UP_PACKETS);
}
const names = Object.keys(VARIANTS);
const cost: Record<string, number[]> = Object.fromEntries(names.map((name) => [name, []]));
for (let round = 0; round < rounds; round++) {
  for (let turn = 0; turn < names.length; turn++) {
    const name = names[(round + turn) % names.length]!;
    const part = SLOW[name] ?? 1;
    await using variant = await VARIANTS[name]!();
    await turns(variant, WARM_UP_PACKETS * part);
    cost[name]!.push(await turns(variant, packets * part));
  }
  const latest = names.map((name) => `${name} ${cost[name]!.at(-1)!.toFixed(0)}`);
  console.error(`bench: round ${round + 1} of ${rounds}: ${latest.join(", ")} ns`);
}
console.error(`bench: the heap, by ${HEAP_PACKETS} packets`);
const figures: StagesFigures = { cost, heapBytesPerPacket: await growth(HEAP_PACKETS) };
console.log(JSON.stringify(figures));
Deno.exit();
