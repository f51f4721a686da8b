/** A stage that copies packets to another end. */

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
import { checkEnd } from "../../core/end.ts";
import { OUT_OF_SLOT } from "../../core/packet.ts";
import { writeTo } from "../../core/write_to.ts";
import { checkOptions, type OptionKinds } from "../../core/options.ts";
import { Segmenter } from "../../split/segmenter.ts";

// Implementation
const SLOTS = { small: 512, large: 16 };
const NO_ROOM = "no room";

/** Options of {@linkcode Mirror}. */
export interface MirrorOptions {
  /** Selects the packets to copy. @default {all} */
  readonly filter?: (packet: Packet, direction: Direction) => boolean;
  /** Direction to copy. @default {both} */
  readonly direction?: Direction;
}

const NAMES: OptionKinds<MirrorOptions> = { filter: "function", direction: "direction" };

/**
 * Copies packets to another end, such as a device that a packet analyzer reads or a transport to a collector.
 *
 * **Outbound** and **inbound**: copies each packet that the filter selects; passes all packets unchanged. Super-packets are
 * segmented and partial checksums completed for an end without offload.
 * **Options**: {@linkcode MirrorOptions}. **Counters**: `mirrored`; `lost`, by reason. Copies do not appear in the
 * tunnel's statistics.
 * **Limits**: packets that the end receives are not read; at most 512 ordinary packets and 16 super-packets wait for it.
 *
 * @example Mirroring one packet to a device
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketBatch, PacketPool, type StageContext } from "@warren/tunnel/core";
 * import { MemoryDevice } from "@warren/tunnel/memory";
 * import { Mirror } from "@warren/tunnel/mirror";
 *
 * const [end] = MemoryDevice.pair();
 * const mirror = new Mirror(end);
 * const batch = new PacketBatch();
 * batch.push(new PacketPool().from(Uint8Array.of(0x45, 0, 0, 20))!);
 * mirror.outbound(batch, { now: 0 } as StageContext); // the tunnel does this
 * assert(mirror.mirrored === 1 && batch.length === 1);
 * mirror.close();
 * ```
 */
export class Mirror implements Stage {
  readonly name = "mirror";
  /** Copies that the end accepted. */
  mirrored = 0;
  /** Copies that were lost, by drop reason. */
  readonly lost: Map<string, number> = new Map();

  readonly #end: TunnelEnd;
  readonly #filter: MirrorOptions["filter"];
  readonly #direction: Direction | undefined;
  readonly #pool = new PacketPool(SLOTS);
  readonly #waiting = new PacketBatch();
  readonly #segmenter = new Segmenter();
  #context: StageContext | undefined;

  /** Attaches to the end, which is closed with the stage. */
  constructor(end: TunnelEnd, options: MirrorOptions = {}) {
    checkOptions("mirror", options, NAMES);
    checkEnd(end);
    const { filter, direction } = options;
    this.#end = end;
    this.#filter = filter;
    this.#direction = direction;
    end.attach(this.#host());
  }

  /** Counters for `Tunnel.stats`. */
  get counters(): object {
    return { mirrored: this.mirrored };
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    if (this.#direction !== Direction.Inbound) this.#copyAll(batch, Direction.Outbound, context);
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    if (this.#direction !== Direction.Outbound) this.#copyAll(batch, Direction.Inbound, context);
  }

  /** Writes copies for which the end had no room, when it has room again, and runs the end's own timers. */
  tick(context: StageContext): number | undefined {
    this.#context = context;
    this.#write();
    const end = this.#end;
    if (end.due! <= context.now) end.tick!();
    return end.due! < Infinity ? Math.max(0, end.due! - context.now) : undefined;
  }

  close(): void {
    this.#end.close();
  }

  #copyAll({ packets, length }: PacketBatch, direction: Direction, context: StageContext): void {
    this.#context = context;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (this.#filter !== undefined && !this.#filter(packet, direction)) continue;
      if (packet.segmentSize !== 0 && this.#end.offload !== true) this.#copySegments(packet);
      else this.#copy(packet);
    }
    this.#write();
  }

  #copySegments(packet: Packet): void {
    const reason = this.#segmenter.start(packet);
    if (reason !== undefined) return this.#lose(reason);
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
      now: () => this.#context?.now ?? 0,
      wake: () => this.#context?.wake(),
      finish: (packet, reason) => {
        if (reason !== undefined) {
          this.#lose(reason);
          this.mirrored--;
        }
        pool.give(packet);
      },
      refuse: () => {},
      watch: () => () => {},
    };
  }
}
