/**
 * The basic types of a tunnel: packets and their pool, batches, queues, the ends that packets come from and go to, the
 * stages between them, and counters.
 *
 * @module
 */

export {
  ENDPOINT_LENGTH,
  HEADROOM,
  LARGE_ROOM,
  Packet,
  type PacketMemory,
  type PacketOwner,
} from "./packet.ts";
export { PacketPool, type PacketPoolOptions, SMALL_ROOM } from "./pool.ts";
export { OneLine } from "./one_line.ts";
export { PacketBatch, type PacketBatchOptions } from "./batch.ts";
export { PacketQueue, type PacketQueueOptions } from "./queue.ts";
export { type Clock, ManualClock } from "./clock.ts";
export {
  Direction,
  opposite,
  type PacketHandler,
  type Stage,
  type StageContext,
  Verdict,
  type WorkerPlace,
} from "./stage.ts";
export type {
  Device,
  DeviceEvent,
  DeviceStatistics,
  EndHost,
  EndWait,
  Rescue,
  Transport,
  TunnelEnd,
  Waitable,
} from "./end.ts";
export { ErrorReasons } from "./error_reasons.ts";
export type { FlowStats, StageStats, TunnelStats } from "./stats.ts";
