/** Eight kinds of stage that run before anything is measured, so that no call site of the runtime knows one alone. */

import { Direction, type PacketHandler, type StageContext, Verdict } from "@warren/tunnel";
import type { Packet, PacketBatch, Stage } from "@warren/tunnel/core";
import { Ipv4 } from "@warren/tunnel/ipv4";
import { Udp } from "@warren/tunnel/udp";

// Implementation
const SERVICES = 64;
const FLOWS = 256;

/** Counts. */
class CountStage implements Stage {
  readonly name = "count";
  #packets = 0;
  outbound(batch: PacketBatch): void {
    this.#packets += batch.length;
  }
  inbound(batch: PacketBatch): void {
    this.outbound(batch);
  }
}

/** Counts bytes by service code. */
class ServiceStage implements Stage {
  readonly name = "service";
  readonly #bytes: Float64Array = new Float64Array(SERVICES);
  outbound(batch: PacketBatch): void {
    for (const packet of batch) this.#bytes[Ipv4.of(packet)?.dscp ?? 0]! += packet.length;
  }
  inbound(batch: PacketBatch): void {
    this.outbound(batch);
  }
}

/** Marks packets by their flow. */
class MarkStage implements Stage {
  readonly name = "mark";
  readonly #marks = new Map<number, number>();
  outbound(batch: PacketBatch): void {
    for (let i = 0; i < batch.length; i++) {
      const packet = batch.packets[i]!;
      const flow = Udp.of(packet)?.dstPort ?? 0;
      if (this.#marks.size < FLOWS) this.#marks.set(flow, (this.#marks.get(flow) ?? 0) + 1);
      packet.mark = flow;
    }
  }
  inbound(batch: PacketBatch): void {
    this.outbound(batch);
  }
}

/** Emits everything itself. */
class EmitStage implements Stage {
  readonly name = "emit";
  outbound(batch: PacketBatch, context: StageContext): void {
    for (let i = 0; i < batch.length; i++) context.emit(batch.packets[i]!, context.direction);
  }
  inbound(batch: PacketBatch, context: StageContext): void {
    this.outbound(batch, context);
  }
}

/** Holds packets until its next tick. */
class HoldStage implements Stage {
  readonly name = "hold";
  #held: Packet[] = [];
  #direction: Direction = Direction.Outbound;
  outbound(batch: PacketBatch, context: StageContext): void {
    this.#direction = context.direction;
    for (let i = 0; i < batch.length; i++) {
      context.hold(batch.packets[i]!);
      this.#held.push(batch.packets[i]!);
    }
  }
  inbound(batch: PacketBatch, context: StageContext): void {
    this.outbound(batch, context);
  }
  tick(context: StageContext): number {
    for (const packet of this.#held) context.emit(packet, this.#direction);
    this.#held = [];
    return 0;
  }
}

const checkLength: PacketHandler = (packet) => packet.length < 20 ? Verdict.Drop : undefined;

const checkVersion: PacketHandler = (packet) =>
  packet.bytes[packet.offset]! >> 4 === 4 ? Verdict.Pass : Verdict.Drop;

const swapAddresses: PacketHandler = (packet, context) => {
  if (context.direction === Direction.Inbound) Ipv4.of(packet)?.swap();
};

/** New ones of each kind. */
export function otherStages(): (Stage | PacketHandler)[] {
  return [
    new CountStage(),
    new ServiceStage(),
    new MarkStage(),
    new EmitStage(),
    new HoldStage(),
    checkLength,
    checkVersion,
    swapAddresses,
  ];
}
