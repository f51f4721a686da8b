/**
 * Impaired links, reproducible from a seed: delay, jitter, loss, duplication, corruption, reordering, rate.
 *
 * @module
 */

export { type ImpairedDirections, Impairment, type ImpairmentOptions } from "./impairment.ts";
export type { GilbertElliott, Impairments, ImpairStats } from "./_lane.ts";
export type { Likelihood } from "./_chance.ts";
export type { DelayDistribution } from "./_distribution.ts";
