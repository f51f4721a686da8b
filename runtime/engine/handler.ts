/** A function of one packet as a stage. */

import {
  opposite,
  type Packet,
  type PacketBatch,
  type PacketHandler,
  type Stage,
  type StageContext,
  Verdict,
} from "../../lib/core/mod.ts";

/** A handler as a stage: one verdict a packet. The handler never sees the batch. */
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
      this.#settle(packet, verdict, context);
    }
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    this.outbound(batch, context);
  }

  #settle(packet: Packet, verdict: Verdict, context: StageContext): void {
    if (verdict === Verdict.Drop) context.drop(packet, this.name);
    else if (verdict === Verdict.Reply) {
      context.emit(packet, opposite(context.direction));
    } else {
      const said = (verdict as unknown) instanceof Promise
        ? "a promise: a handler cannot wait"
        : String(verdict);
      throw new TypeError(`Cannot take a handler's verdict: it returned ${said}`);
    }
  }
}

/** A stage as it is; a handler as the stage that asks it about each packet. */
export function toStage(stage: Stage | PacketHandler): Stage {
  if (typeof stage === "function") return new HandlerStage(stage);
  const fault = faultOf(stage);
  if (fault === undefined) return stage;
  throw new TypeError(`Cannot use ${Deno.inspect(stage, { depth: 0 })} as a stage: ${fault}`);
}

function faultOf(stage: Stage): string | undefined {
  if (stage === null || typeof stage !== "object") return "it is neither a function nor an object";
  if (typeof stage.name !== "string") return "it has no name";
  const methods = ["outbound", "inbound", "tick", "close"] as const;
  const wrong = methods.find((method) => !["undefined", "function"].includes(typeof stage[method]));
  if (wrong !== undefined) return `its ${wrong} is no function`;
  const { segmented } = stage;
  return segmented === undefined || typeof segmented === "boolean"
    ? undefined
    : "its segmented is no boolean";
}
