/** Counters of a tunnel: packets in, out, created, consumed, dropped by reason, and queued. */

// Implementation
/** Maximum number of drop reasons of a tunnel, including {@linkcode OTHER_REASONS}. */
export const MAX_REASONS = 64;
/** Drop reason of all packets once there are too many reasons, since a script may take reasons from packets. */
export const OTHER_REASONS = "other reasons";
/** Maximum length of a reason (characters). */
const MAX_REASON_LENGTH = 100;
/** Characters that terminals act on: control, format, lone surrogates, line separators (Unicode chapter 4.5). */
const ACTS_ON_TERMINALS = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** Counters of one stage of a tunnel. */
export interface StageStats {
  /** Name of the stage. */
  readonly name: string;
  /** Packets dropped by the stage through its context, by reason; bounded as {@linkcode TunnelStats.dropped} is. */
  readonly dropped: Record<string, number>;
  /** The stage's own counters: `Stage.counters`. */
  readonly counters: Record<string, number>;
}

/** Packets that entered and left a tunnel in one direction. */
export interface FlowStats {
  /** Packets read from the source end. */
  packetsIn: number;
  /** Bytes of those packets. */
  bytesIn: number;
  /** Packets delivered by the destination end. */
  packetsOut: number;
  /** Bytes of those packets, and of packets that the end still queues. */
  bytesOut: number;
}

/**
 * Counters of a tunnel at one moment. `outbound.packetsIn + inbound.packetsIn + created` always equals
 * `outbound.packetsOut + inbound.packetsOut + consumed + queued` plus the total of `dropped`.
 *
 * With several workers, those of the first worker are the totals, and each other worker has its own. A packet that is
 * handed over leaves one worker and enters another; the totals count neither.
 */
export interface TunnelStats {
  /** Packets from this machine. */
  outbound: FlowStats;
  /** Packets to this machine. */
  inbound: FlowStats;
  /** Packets created by stages. */
  created: number;
  /** Packets that stages ended without a drop, such as replies to their probes and super-packets that they segmented. */
  consumed: number;
  /** Packets dropped, by reason: at most 64 reasons of 100 characters, the last of which is `other reasons`. */
  dropped: Record<string, number>;
  /** Packets held by stages or waiting for an end that is full. */
  queued: number;
  /** Packets whose header a view found truncated or inconsistent; the other counters include them. */
  malformed: number;
  /**
   * Stages in order, including the handler of `run`; empty before the tunnel runs. With several workers, those of this
   * worker, whose drops do not add up to `dropped`.
   */
  stages: StageStats[];
}

/** Counts of dropped packets by reason. For the runtime. */
export class DropCounts {
  /** Dropped packets, for all reasons. */
  total = 0;
  readonly #reasons = new Map<string, number>();

  /** Counts a packet. */
  count(reason: string): void {
    this.total++;
    const count = this.#reasons.get(reason);
    if (count !== undefined) this.#reasons.set(reason, count + 1);
    else this.#countNew(reason);
  }

  #countNew(reason: string): void {
    const text = String(reason).slice(0, MAX_REASON_LENGTH).replace(ACTS_ON_TERMINALS, "?");
    const count = this.#reasons.get(text);
    const isNew = count === undefined && text !== OTHER_REASONS;
    const known = isNew && this.#reasons.size >= MAX_REASONS - 1 ? OTHER_REASONS : text;
    this.#reasons.set(known, (this.#reasons.get(known) ?? 0) + 1);
  }

  /** Number of drops by reason. */
  get reasons(): ReadonlyMap<string, number> {
    return this.#reasons;
  }
}

/** Counters from which {@linkcode TunnelStats} is copied. For the runtime. */
export class Counters {
  /** Packets from this machine. */
  readonly outbound: FlowStats = { packetsIn: 0, bytesIn: 0, packetsOut: 0, bytesOut: 0 };
  /** Packets to this machine. */
  readonly inbound: FlowStats = { packetsIn: 0, bytesIn: 0, packetsOut: 0, bytesOut: 0 };
  /** Packets created by stages. */
  created = 0;
  /** Packets ended by stages without a drop. */
  consumed = 0;
  /** Packets with a truncated or inconsistent header. */
  malformed = 0;
  /** Packets dropped. */
  readonly dropped: DropCounts = new DropCounts();

  /** Counts a dropped packet. */
  drop(reason: string): void {
    this.dropped.count(reason);
  }

  /** Returns a copy of the counters, with the number of queued packets and the counters of the stages. */
  snapshot(queued: number, stages: StageStats[] = []): TunnelStats {
    return {
      outbound: { ...this.outbound },
      inbound: { ...this.inbound },
      created: this.created,
      consumed: this.consumed,
      dropped: Object.fromEntries(this.dropped.reasons),
      queued,
      malformed: this.malformed,
      stages,
    };
  }
}
