/** Writes to an end and checks the number of packets that it reports as taken. */

import type { PacketBatch } from "./batch.ts";
import type { TunnelEnd } from "./end.ts";

/** The part of an end that packets are written to. */
export type PacketSink = Pick<TunnelEnd, "name" | "offload" | "write">;

/**
 * Writes a batch to an end and returns the number of packets taken. Even if the end misbehaves, each packet left in the
 * batch belongs to the batch and is there once.
 *
 * @throws {TypeError} naming the end, when it threw or did not take the packets that it reports.
 */
export function writeTo(end: PacketSink, batch: PacketBatch): number {
  const { length } = batch;
  let taken: number;
  try {
    taken = end.write(batch);
  } catch (cause) {
    batch.compact();
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new TypeError(`Cannot write to "${end.name}": its write threw: ${message}`, { cause });
  }
  return batch.length === 0 && taken === length ? taken : checkTaken(end, batch, length, taken);
}

function checkTaken(end: PacketSink, batch: PacketBatch, length: number, taken: number): number {
  const left = batch.length;
  const { packets } = batch;
  let isWhole = left <= length;
  for (let i = 0; i < left; i++) if (packets[i]!.owner !== batch) isWhole = false;
  if (isWhole && taken === length - left) return taken;
  batch.compact();
  const gone = length - left;
  const fault = isWhole
    ? `its write returned ${taken} and took ${gone} of ${length} packets off the batch: call batch.shift(count)`
    : "its write gave packets away that it left in the batch: take packets from the front, and call batch.shift(count)";
  throw new TypeError(`Cannot write to "${end.name}": ${fault}`);
}
