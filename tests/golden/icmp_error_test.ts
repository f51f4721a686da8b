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
  readonly #options: Options;
  readonly #errors: IcmpErrors;

  constructor(options: Options) {
    this.#options = options;
    this.#errors = new IcmpErrors(options);
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    this.inbound(batch, context);
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    const { error, rest } = this.#options;
    for (const packet of batch) {
      if (error === undefined) this.#errors.reset(packet, context, "closed");
      else this.#errors.answer(packet, IcmpError[error], context, "closed", rest);
    }
  }
}

goldenTests<Options>(new URL("icmp_error.txt", import.meta.url), (options) => [new Answer(options)]);
