/** Handlers (functions that return a verdict for each packet) as stages, and the checks of stages. */

import {
  opposite,
  type Packet,
  type PacketBatch,
  type PacketHandler,
  type Stage,
  type StageContext,
  Verdict,
} from "../../lib/core/mod.ts";
import { gotValue } from "../../lib/core/options.ts";

/** A stage that calls a handler once per packet. The handler never sees the batch. */
export class HandlerStage implements Stage {
  readonly name: string;
  readonly #handler: PacketHandler;

  constructor(handler: PacketHandler) {
    this.name = handler.name || "handler";
    this.#handler = handler;
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    const handler = this.#handler;
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const verdict = handler(packet, context);
      if (verdict === undefined || verdict === Verdict.Pass) continue;
      this.#apply(packet, verdict, context);
    }
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    this.outbound(batch, context);
  }

  #apply(packet: Packet, verdict: unknown, context: StageContext): void {
    if (verdict === Verdict.Drop) context.drop(packet, this.name);
    else if (verdict === Verdict.Reply) {
      context.emit(packet, opposite(context.direction));
    } else {
      const got = verdict instanceof Promise ? "got a promise: a handler cannot wait" : gotValue(verdict);
      throw new TypeError(`Cannot use a handler's result: it must be a Verdict or undefined, ${got}`);
    }
  }
}

/** Returns a stage unchanged, and a handler as a stage. @throws {TypeError} for any other value. */
export function toStage(stage: Stage | PacketHandler): Stage {
  if (typeof stage === "function") return new HandlerStage(stage);
  if (stage === null || typeof stage !== "object") {
    throw new TypeError(`Cannot use a stage: it must be a function or an object, ${gotValue(stage)}`);
  }
  const { name, segmented } = stage;
  if (typeof name !== "string") {
    throw new TypeError(`Cannot use a stage: its name must be a string, ${gotValue(name)}`);
  }
  for (const method of ["outbound", "inbound", "tick", "close"] as const) {
    const value = stage[method];
    if (value === undefined || typeof value === "function") continue;
    throw new TypeError(`Cannot use stage "${name}": ${method} must be a function, ${gotValue(value)}`);
  }
  if (segmented === undefined || typeof segmented === "boolean") return stage;
  throw new TypeError(`Cannot use stage "${name}": segmented must be a boolean, ${gotValue(segmented)}`);
}
