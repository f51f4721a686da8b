/** A pipeline without ends or a loop: packets are put in and taken out by hand, one byte long each. */

import { Direction, type PacketBatch, PacketPool, type Stage } from "../../lib/core/mod.ts";
import { Heartbeat } from "../../runtime/heartbeat.ts";
import { Ledger } from "../../runtime/ledger.ts";
import { type OtherWorkers, Pipeline } from "../../runtime/pipeline/pipeline.ts";

/** What a test drives. */
export class TestPipeline {
  /** The pipeline. */
  readonly pipeline: Pipeline;
  /** Its packets' memory. */
  readonly pool: PacketPool = new PacketPool({ small: 256, large: 0 });
  /** How often a stage asked for a breath. */
  wakes = 0;
  /** The breath's time. */
  now = 0;

  /** A pipeline of these stages; and of one of several workers, when it is told of the others. */
  constructor(...parts: (Stage | { others: OtherWorkers })[]) {
    const stages = parts.filter((part) => "name" in part);
    const beside = parts.find((part) => "others" in part);
    this.pipeline = new Pipeline(stages, {
      ledger: new Ledger(this.pool),
      others: beside?.others,
      heartbeat: new Heartbeat(),
      wake: () => void this.wakes++,
    });
  }

  /** Packets of one byte each, as an end would deliver them. */
  put(direction: Direction, bytes: number[]): void {
    const { pipeline } = this;
    const batch = direction === Direction.Outbound ? pipeline.outbound[0]! : pipeline.fromFar;
    const flow = direction === Direction.Outbound
      ? pipeline.ledger.counters.outbound
      : pipeline.ledger.counters.inbound;
    for (const byte of bytes) {
      batch.push(this.pool.from(Uint8Array.of(byte))!);
      flow.packetsIn++;
      flow.bytesIn++;
    }
  }

  /** Breathes until nothing moves. */
  settle(): void {
    const { pipeline, now } = this;
    for (let moved = true; moved;) {
      const [out, back] = [pipeline.flow(Direction.Outbound, now), pipeline.flow(Direction.Inbound, now)];
      moved = out || back || pipeline.due <= now && pipeline.tick(now);
    }
  }

  /** Takes what has come through for the far end and for the device, as their bytes. */
  take(): { far: number[]; device: number[] } {
    const { pipeline } = this;
    const far = this.#empty(pipeline.forFar, pipeline.ledger.counters.outbound);
    return { far, device: this.#empty(pipeline.forDevice, pipeline.ledger.counters.inbound) };
  }

  /** Whether packets in are packets out, dropped and queued. */
  get balanced(): boolean {
    const { outbound, inbound, created, dropped, queued } = this.pipeline.ledger.counters.snapshot(
      this.pipeline.queued,
    );
    const lost = Object.values(dropped).reduce((sum, count) => sum + count, 0);
    return outbound.packetsIn + inbound.packetsIn + created ===
        outbound.packetsOut + inbound.packetsOut + lost + queued && this.pool.taken === queued;
  }

  #empty(batch: PacketBatch, flow: { packetsOut: number; bytesOut: number }): number[] {
    const bytes = [...batch].map((packet) => packet.data[0]!);
    for (const packet of batch) {
      flow.packetsOut++;
      flow.bytesOut += packet.length;
      this.pool.give(packet);
    }
    batch.clear();
    return bytes;
  }
}
