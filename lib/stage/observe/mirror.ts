/** A stage that copies what passes to another end. */

import {
  Direction,
  type EndHost,
  type Packet,
  PacketBatch,
  PacketPool,
  type Stage,
  type StageContext,
  type TunnelEnd,
} from "../../core/mod.ts";
import { copyPacket } from "../../core/copy_packet.ts";
import { OUT_OF_SLOT } from "../../core/packet.ts";
import { writeTo } from "../../core/write_to.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";
import { Segmenter } from "../../split/segmenter.ts";

// Implementation
const SLOTS = { small: 512, large: 16 };
const NO_ROOM = "no room";

/** Options of a {@linkcode Mirror}. */
export interface MirrorOptions {
  /** Which packets are copied. @default {all} */
  readonly filter?: (packet: Packet, direction: Direction) => boolean;
  /** Which way they go. @default {both} */
  readonly direction?: Direction;
}

const NAMES: OptionNames<MirrorOptions> = { filter: "optional", direction: "optional" };

/**
 * Copies packets to an end of its own, such as a device that a sniffer reads, or a transport to a collector.
 *
 * **Outbound** and **inbound**: copied, and passed on untouched.
 *
 * **Options**: `filter` (all), `direction` (both).
 *
 * **Counters**: `mirrored`, copies that the end took; `lost`, those that it did not, by reason. The tunnel's own counters
 * know nothing of copies.
 *
 * **Limits**: what comes from the end is not read. 512 ordinary copies and 16 super-packets wait for it at most.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { MemoryDevice } from "@warren/tunnel/memory";
 * import { Mirror } from "@warren/tunnel/mirror";
 *
 * const [end] = MemoryDevice.pair();
 * const mirror = new Mirror(end);
 * // tunnel.use(mirror);
 * assert(mirror.mirrored === 0);
 * mirror.close();
 * ```
 */
export class Mirror implements Stage {
  readonly name = "mirror";
  /** Copies that the end took. */
  mirrored = 0;
  /** Copies that were lost, by reason. */
  readonly lost: Map<string, number> = new Map();

  readonly #end: TunnelEnd;
  readonly #filter: MirrorOptions["filter"];
  readonly #direction: Direction | undefined;
  readonly #pool = new PacketPool(SLOTS);
  readonly #waiting = new PacketBatch();
  readonly #segmenter = new Segmenter();
  #context: StageContext | undefined;

  /** Takes the end over: it is closed with the stage. */
  constructor(end: TunnelEnd, options: MirrorOptions = {}) {
    checkNames("mirror", options, NAMES);
    const { filter, direction } = options;
    this.#end = end;
    this.#filter = filter;
    this.#direction = direction;
    end.attach(this.#host());
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    if (this.#direction !== Direction.Inbound) this.#copyAll(batch, Direction.Outbound, context);
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    if (this.#direction !== Direction.Outbound) this.#copyAll(batch, Direction.Inbound, context);
  }

  /** Tries again what the end had no room for, when it asks for that. */
  tick(context: StageContext): undefined {
    this.#context = context;
    this.#write();
  }

  close(): void {
    this.#end.close();
  }

  #copyAll({ packets, length }: PacketBatch, direction: Direction, context: StageContext): void {
    this.#context = context;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (this.#filter !== undefined && !this.#filter(packet, direction)) continue;
      if (packet.segmentSize !== 0 && this.#end.offload !== true) this.#cut(packet);
      else this.#copy(packet);
    }
    this.#write();
  }

  #cut(packet: Packet): void {
    const refusal = this.#segmenter.start(packet);
    if (refusal !== undefined) return this.#lose(refusal);
    while (this.#segmenter.remaining > 0) {
      const segment = this.#segmenter.next(this.#pool);
      if (segment === undefined) return this.#lose(NO_ROOM, this.#segmenter.remaining);
      this.#push(segment);
    }
  }

  #copy(packet: Packet): void {
    if (!packet.isInSlot) return this.#lose(OUT_OF_SLOT);
    const copy = copyPacket(packet, this.#pool);
    if (copy === undefined) return this.#lose(NO_ROOM);
    if (this.#end.offload !== true) copy.finish();
    this.#push(copy);
  }

  #push(copy: Packet): void {
    if (this.#waiting.full) this.#write();
    if (this.#waiting.full) {
      this.#lose(NO_ROOM);
      this.#pool.give(copy);
    } else this.#waiting.push(copy);
  }

  #write(): void {
    if (this.#waiting.length > 0) this.mirrored += writeTo(this.#end, this.#waiting);
  }

  #lose(reason: string, copies = 1): void {
    this.lost.set(reason, (this.lost.get(reason) ?? 0) + copies);
  }

  #host(): EndHost {
    const pool = this.#pool;
    return {
      pool,
      wake: () => this.#context?.wake(),
      drop: (packet, reason) => {
        this.#lose(reason);
        this.mirrored--;
        pool.give(packet);
      },
      done: (packet) => pool.give(packet),
      refuse: () => {},
      watch: () => () => {},
    };
  }
}
