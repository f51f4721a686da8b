/** A pipeline without ends or a loop: packets are put in and taken out by hand. */

import { Direction, type Packet, type PacketBatch, PacketPool, type Stage } from "../../lib/core/mod.ts";
import { Heartbeat } from "../../runtime/engine/heartbeat.ts";
import { Ledger } from "../../runtime/engine/ledger.ts";
import { type OtherWorkers, Pipeline } from "../../runtime/engine/pipeline.ts";
import { copy } from "../../lib/split/copy.ts";

/** What a test drives. */
export class TestPipeline {
  /** The pipeline. */
  readonly pipeline: Pipeline;
  /** Its packets' memory. */
  readonly pool: PacketPool;
  /** How often a stage asked for a breath. */
  wakes = 0;
  /** The breath's time. */
  now = 0;

  /** A pipeline of these stages; with a pool of its own, and of one of several workers, when it is told of them. */
  constructor(...parts: (Stage | { others: OtherWorkers } | PacketPool)[]) {
    const stages = parts.filter((part) => "name" in part);
    const beside = parts.find((part) => "others" in part);
    this.pool = parts.find((part) => part instanceof PacketPool) ?? new PacketPool({ small: 256, large: 0 });
    this.pipeline = new Pipeline(stages, {
      ledger: new Ledger(this.pool),
      others: beside?.others,
      heartbeat: new Heartbeat(),
      wake: () => void this.wakes++,
    });
  }

  /** A packet, as an end would deliver it. */
  send(direction: Direction, bytes: Uint8Array): void {
    const { pipeline } = this;
    const batch = direction === Direction.Outbound ? pipeline.outbound[0]! : pipeline.fromFar;
    const flow = direction === Direction.Outbound
      ? pipeline.ledger.counters.outbound
      : pipeline.ledger.counters.inbound;
    batch.push(this.pool.from(bytes)!);
    flow.packetsIn++;
    flow.bytesIn += bytes.length;
  }

  /** Packets of one byte each. */
  put(direction: Direction, bytes: number[]): void {
    for (const byte of bytes) this.send(direction, Uint8Array.of(byte));
  }

  /** Breathes until nothing moves. */
  settle(): void {
    const { pipeline, now } = this;
    for (let moved = true; moved;) {
      const [out, back] = [pipeline.flow(Direction.Outbound, now), pipeline.flow(Direction.Inbound, now)];
      moved = out || back || pipeline.due <= now && pipeline.tick(now);
    }
  }

  /** Takes what has come through for the far end and for the device. */
  receive(): { far: Uint8Array[]; device: Uint8Array[] } {
    const { pipeline } = this;
    const far = this.#empty(pipeline.forFar, pipeline.ledger.counters.outbound);
    return { far, device: this.#empty(pipeline.forDevice, pipeline.ledger.counters.inbound) };
  }

  /** Takes what has come through, as first bytes. */
  take(): { far: number[]; device: number[] } {
    const { far, device } = this.receive();
    return { far: far.map((bytes) => bytes[0]!), device: device.map((bytes) => bytes[0]!) };
  }

  /** Whether packets in are packets out, dropped and queued. */
  get balanced(): boolean {
    const { outbound, inbound, created, consumed, dropped, queued } = this.pipeline.ledger.counters.snapshot(
      this.pipeline.queued,
    );
    const lost = Object.values(dropped).reduce((sum, count) => sum + count, 0);
    return outbound.packetsIn + inbound.packetsIn + created ===
        outbound.packetsOut + inbound.packetsOut + consumed + lost + queued && this.pool.taken === queued;
  }

  #empty(batch: PacketBatch, flow: { packetsOut: number; bytesOut: number }): Uint8Array[] {
    const packets: Uint8Array[] = [];
    for (const packet of batch) {
      packets.push(...copy(packet));
      flow.packetsOut++;
      flow.bytesOut += packet.length;
      this.pipeline.ledger.giveBack(packet);
    }
    batch.clear();
    return packets;
  }
}

/** A stage that changes outbound packets before the tested one. */
export function before(change: (packet: Packet) => void): Stage {
  return { name: "before", outbound: (batch) => Array.from(batch).forEach(change) };
}
