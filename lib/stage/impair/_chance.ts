/** Correlated random numbers like netem's, and decisions from them. */

import { checkOptions, gotValue, type OptionKinds } from "../../core/options.ts";
import { Random } from "../../core/random.ts";

/** Probability of an impairment, from 0 to 1, or with a correlation between consecutive decisions. */
export type Likelihood = number | {
  /** Probability, from 0 (never) to 1 (always). */
  readonly probability: number;
  /** Share of the previous random number in each new one, from 0 to 1. @default {0} */
  readonly correlation?: number;
};

const NAMES: OptionKinds<Exclude<Likelihood, number>> = { probability: "number", correlation: "number" };

/**
 * A stream of random numbers. Each impairment has its own, so that the same packets are lost when only the delay changes.
 */
export class Chance {
  #probability = 0;
  #correlation = 0;
  #last: number;
  readonly #random: Random;

  constructor(seed: number, stream: number) {
    this.#random = new Random(seed, stream);
    this.#last = this.#random.fraction();
  }

  /**
   * Sets probability and correlation; `name` is the option's name, for errors.
   *
   * @throws {RangeError} when a number is not from 0 to 1.
   */
  set(name: string, likelihood: Likelihood): void {
    const options = typeof likelihood === "object" ? likelihood : { probability: likelihood };
    checkOptions("impair packets", options, NAMES, ["probability"], name);
    const { probability, correlation = 0 } = options;
    checkProbability(name, probability);
    checkProbability(`correlation of ${name}`, correlation);
    this.#probability = probability;
    this.#correlation = correlation;
  }

  /** True if the probability is above 0. */
  get isPossible(): boolean {
    return this.#probability > 0;
  }

  /** Decides once; with a probability of 0, without drawing a number. */
  happens(): boolean {
    return this.#probability > 0 && this.next() < this.#probability;
  }

  /** Draws the next number, from 0 up to but not including 1. */
  next(): number {
    const fraction = this.#random.fraction();
    if (this.#correlation === 0) return fraction;
    return this.#last = fraction * (1 - this.#correlation) + this.#last * this.#correlation;
  }

  /** Returns the position in the stream. */
  save(): unknown {
    return { last: this.#last, random: this.#random.save() };
  }

  /** @throws {TypeError} when the state does not come from {@linkcode Chance.save}. */
  restore(state: unknown): void {
    const { last, random } = (state ?? {}) as { last?: unknown; random?: unknown };
    if (typeof last !== "number" || !(last >= 0 && last < 1)) {
      throw new TypeError(`Cannot restore random numbers: state must come from save(), ${gotValue(state)}`);
    }
    this.#random.restore(random);
    this.#last = last;
  }
}

/** @throws {RangeError} when a probability is not from 0 to 1. */
export function checkProbability(name: string, probability: number): void {
  if (probability >= 0 && probability <= 1) return;
  throw new RangeError(`Cannot impair packets: ${name} must be from 0 to 1, ${gotValue(probability)}`);
}
