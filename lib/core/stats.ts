/** A tunnel's counters: packets in, out, consumed, dropped by reason, and queued. */

// Implementation
/** The number of reasons that a tunnel's counters tell apart, {@linkcode OTHER_REASONS} among them. */
export const MAX_REASONS = 64;
/** The reason under which drops are counted once there are too many others: a script may take them from packets. */
export const OTHER_REASONS = "other reasons";
/** The longest text of a reason (characters). */
const MAX_REASON_LENGTH = 100;
/** Control characters, what turns the direction of text or breaks lines, and halves of characters (Unicode chapter 4.5). */
const ACTS_ON_TERMINALS = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** The packets that entered and left a tunnel in one direction. */
export interface FlowStats {
  /** Packets read from the end where this direction starts. */
  packetsIn: number;
  /** Their bytes. */
  bytesIn: number;
  /** Packets that the end where this direction leads delivered. */
  packetsOut: number;
  /** Their bytes, and those of packets that the end has taken and still queues. */
  bytesOut: number;
}

/**
 * A tunnel's counters at one moment, for which always holds: `outbound.packetsIn + inbound.packetsIn + created`
 * equals `outbound.packetsOut + inbound.packetsOut + consumed + queued` and the sum of `dropped`.
 *
 * With several workers, those of the first one are the sums over all; each other one has its own. There, a packet
 * that is handed over has gone out of one worker and come into the other; in the sums it has done neither.
 */
export interface TunnelStats {
  /** From this machine. */
  outbound: FlowStats;
  /** To this machine. */
  inbound: FlowStats;
  /** Packets that stages made themselves. */
  created: number;
  /** Packets that stages were done with: replies to probes of their own, super-packets that they segmented. */
  consumed: number;
  /** Packets dropped, by reason: 64 reasons of 100 characters at most, of which the last one is `other reasons`. */
  dropped: Record<string, number>;
  /** Packets inside: held by stages, or waiting for an end that is full. */
  queued: number;
  /** Packets in which a view found a header cut short; they are counted among the others as well. */
  malformed: number;
}

/** The counters behind a {@linkcode TunnelStats}. For the runtime. */
export class Counters {
  /** From this machine. */
  readonly outbound: FlowStats = { packetsIn: 0, bytesIn: 0, packetsOut: 0, bytesOut: 0 };
  /** To this machine. */
  readonly inbound: FlowStats = { packetsIn: 0, bytesIn: 0, packetsOut: 0, bytesOut: 0 };
  /** Packets that stages made. */
  created = 0;
  /** Packets that stages were done with. */
  consumed = 0;
  /** Packets with a header cut short. */
  malformed = 0;
  /** Packets dropped, for all reasons. */
  dropped = 0;
  readonly #reasons = new Map<string, number>();

  /** Counts a dropped packet. */
  drop(reason: string): void {
    this.dropped++;
    const count = this.#reasons.get(reason);
    if (count !== undefined) this.#reasons.set(reason, count + 1);
    else this.#dropForNewReason(reason);
  }

  #dropForNewReason(reason: string): void {
    const text = String(reason).slice(0, MAX_REASON_LENGTH).replace(ACTS_ON_TERMINALS, "?");
    const count = this.#reasons.get(text);
    const isNew = count === undefined && text !== OTHER_REASONS;
    const known = isNew && this.#reasons.size >= MAX_REASONS - 1 ? OTHER_REASONS : text;
    this.#reasons.set(known, (this.#reasons.get(known) ?? 0) + 1);
  }

  /** How many were dropped for each reason. */
  get reasons(): ReadonlyMap<string, number> {
    return this.#reasons;
  }

  /** A copy of the counters, with how many packets are queued. */
  snapshot(queued: number): TunnelStats {
    return {
      outbound: { ...this.outbound },
      inbound: { ...this.inbound },
      created: this.created,
      consumed: this.consumed,
      dropped: Object.fromEntries(this.#reasons),
      queued,
      malformed: this.malformed,
    };
  }
}
