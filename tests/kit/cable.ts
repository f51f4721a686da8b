/** Ends of the system, joined so that nothing is lost between them: what the conformance suite asks of a pair. */

import { type EndHost, type EndWait, PacketBatch, type TunnelEnd } from "../../lib/core/mod.ts";

/** Packets that may be under way in one direction, so that the kernel drops none. */
const UNDER_WAY = 500;

/** An end that takes no more than its other side has room for, where the kernel would drop. */
export class Cabled implements TunnelEnd {
  readonly queued = 0;
  /** The other side. */
  partner!: Cabled;
  readonly #end: TunnelEnd;
  /** Packets that it has written and its partner has not read. */
  #underWay = 0;

  /** For {@linkcode cable}. */
  constructor(end: TunnelEnd) {
    this.#end = end;
  }

  get name(): string {
    return this.#end.name;
  }

  get waits(): readonly EndWait[] {
    return this.#end.waits;
  }

  get failure(): Error | undefined {
    return this.#end.failure;
  }

  get closed(): Promise<void> | undefined {
    return this.#end.closed;
  }

  attach(host: EndHost): void {
    this.#end.attach(host);
  }

  read(batch: PacketBatch): number {
    const count = this.#end.read(batch);
    this.partner.#underWay -= count;
    return count;
  }

  write(batch: PacketBatch): number {
    const room = UNDER_WAY - this.#underWay;
    const some = new PacketBatch({ packets: UNDER_WAY });
    const count = Math.min(room, batch.length);
    for (let i = 0; i < count; i++) some.push(batch.packets[i]!);
    const written = this.#end.write(some);
    for (const packet of some) packet.owner = batch;
    batch.shift(written);
    this.#underWay += written;
    return written;
  }

  close(): void {
    this.#end.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Joins two ends, of which each reads what the other one writes. */
export function cable(one: TunnelEnd, other: TunnelEnd): [Cabled, Cabled] {
  const [near, far] = [new Cabled(one), new Cabled(other)];
  near.partner = far;
  far.partner = near;
  return [near, far];
}
