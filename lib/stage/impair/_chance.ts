/** Random numbers that resemble the one before, as netem's, and what happens by them. */

import { checkNames, type OptionNames } from "../../core/options.ts";
import { Random } from "../../core/random.ts";

/** How likely something is: 0 to 1, and how much each decision resembles the one before. */
export type Likelihood = number | {
  /** How likely it is: 0 (never) to 1 (always). */
  readonly probability: number;
  /** How much of each random number is the one before: 0 to 1. @default {0} */
  readonly correlation?: number;
};

const NAMES: OptionNames<Exclude<Likelihood, number>> = { probability: "needed", correlation: "optional" };

/**
 * A row of random numbers. Each thing that can happen to packets has its own, so that the same packets are lost when
 * delays are made different.
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
   * Sets how likely it is.
   *
   * @throws {RangeError} when that is not from 0 to 1.
   */
  set(what: string, likelihood: Likelihood): void {
    const told = typeof likelihood === "number" ? { probability: likelihood } : likelihood;
    checkNames(`impair by ${what}`, told, NAMES);
    const { probability, correlation = 0 } = told;
    checkProbability(what, probability);
    checkProbability(`the correlation of ${what}`, correlation);
    this.#probability = probability;
    this.#correlation = correlation;
  }

  /** Whether it can happen. */
  get isPossible(): boolean {
    return this.#probability > 0;
  }

  /** Whether it happens. What cannot takes no number. */
  happens(): boolean {
    return this.#probability > 0 && this.next() < this.#probability;
  }

  /** The next number, from 0 up to 1. */
  next(): number {
    const fraction = this.#random.fraction();
    if (this.#correlation === 0) return fraction;
    return this.#last = fraction * (1 - this.#correlation) + this.#last * this.#correlation;
  }

  /** Where it is in its row. */
  save(): unknown {
    return { last: this.#last, random: this.#random.save() };
  }

  /** @throws {TypeError} when it is not what {@linkcode Chance.save} gave. */
  restore(state: unknown): void {
    const { last, random } = (state ?? {}) as { last?: unknown; random?: unknown };
    if (typeof last !== "number" || !(last >= 0 && last < 1)) {
      throw new TypeError(`Cannot restore a row of random numbers from ${JSON.stringify(state)}`);
    }
    this.#random.restore(random);
    this.#last = last;
  }
}

/** @throws {RangeError} when it is not from 0 to 1. */
export function checkProbability(what: string, probability: number): void {
  if (!(probability >= 0 && probability <= 1)) {
    throw new RangeError(`Cannot set ${what} to ${probability}: 0 to 1 are probabilities`);
  }
}
