/**
 * Traffic shaping: a stage that limits the rate, and the queues in which packets wait. Queues implement
 * {@linkcode Scheduler}; {@linkcode Priority} combines several.
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
export { TokenBucket, type TokenBucketOptions } from "../../core/token_bucket.ts";
