/** Answers to packets that go no further, as text. */

import type { PacketBatch, Stage, StageContext } from "@warren/tunnel/core";
import { IcmpError, IcmpErrors, type IcmpErrorsOptions } from "@warren/tunnel/icmp_error";
import { goldenTests } from "../kit/golden.ts";

interface Options extends IcmpErrorsOptions {
  /** What everything is answered with; a reset without any. */
  error?: keyof typeof IcmpError;
  rest?: number;
}

/** Answers everything, whichever way it goes. */
class Answer implements Stage {
  readonly name = "answer";
  readonly #error: Options["error"];
  readonly #rest: Options["rest"];
  readonly #errors: IcmpErrors;

  constructor({ error, rest, ...options }: Options) {
    this.#error = error;
    this.#rest = rest;
    this.#errors = new IcmpErrors({ random: () => 1, ...options });
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    this.inbound(batch, context);
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    for (const packet of batch) {
      if (this.#error === undefined) this.#errors.reset(packet, context, "closed");
      else this.#errors.answer(packet, IcmpError[this.#error], context, "closed", this.#rest);
    }
  }
}

goldenTests<Options>(new URL("icmp_error.txt", import.meta.url), (options) => [new Answer(options)]);
