/**
 * Traffic shaping: a stage that sends packets on at a rate, and the queues in which they wait for it. A queue is a
 * {@linkcode Scheduler}; {@linkcode Priority} is made of others.
 *
 * @module
 */

export { type ShapeOptions, Shaper, type ShapeRates, type ShaperOptions, type ShapeStats } from "./shaper.ts";
export type { Scheduler } from "./scheduler.ts";
export { Fifo, type FifoOptions } from "./fifo.ts";
export { FqCodel, type FqCodelOptions } from "./fq_codel.ts";
export {
  bandByDscp,
  bandByFilter,
  type PacketClassifier,
  Priority,
  type PriorityOptions,
} from "./priority.ts";
export { TokenBucket, type TokenBucketOptions } from "./token_bucket.ts";
