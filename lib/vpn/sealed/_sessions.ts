/** Sessions of the sealed protocol: one key and one row of counters each. */

import type { OpeningKey, SealingKey } from "../aead.ts";
import { ReplayWindow } from "../replay_window.ts";
import { SESSION_LENGTH } from "./_datagram.ts";

// Implementation
const TIME_SCALE = 2 ** 16;

/** A session of 12 bytes: wall-clock milliseconds (6 bytes), then random bytes (6), as three words. */
class Session {
  readonly word0: number;
  readonly word1: number;
  readonly word2: number;

  constructor(word0: number, word1: number, word2: number) {
    this.word0 = word0;
    this.word1 = word1;
    this.word2 = word2;
  }

  /** Start by the sender's wall clock (milliseconds since 1970). */
  get time(): number {
    return timeOf(this.word0, this.word1);
  }

  /** Reports whether it has these words. */
  is(word0: number, word1: number, word2: number): boolean {
    return this.word0 === word0 && this.word1 === word1 && this.word2 === word2;
  }
}

/** A session of this side. */
export class SendingSession extends Session {
  readonly key: SealingKey;
  /** Start (monotonic milliseconds). */
  readonly startedAt: number;

  constructor(view: DataView, key: SealingKey, startedAt: number) {
    super(view.getInt32(0), view.getInt32(4), view.getInt32(8));
    this.key = key;
    this.startedAt = startedAt;
  }
}

/** A session of the peer, of which at least one datagram is authentic. */
export class ReceivingSession extends Session {
  readonly key: OpeningKey;
  readonly window: ReplayWindow = new ReplayWindow();

  constructor(word0: number, word1: number, word2: number, key: OpeningKey) {
    super(word0, word1, word2);
    this.key = key;
  }

  /** Session and newest counter, for `save`. */
  save(): SavedSession {
    const bytes = sessionBytes(this.word0, this.word1, this.word2);
    return { session: bytes.toHex(), counter: this.window.newest };
  }
}

/** The peer's newest session in a saved state: counters up to this one are not accepted again. */
export interface SavedSession {
  readonly session: string;
  readonly counter: number;
}

/** A session from a saved state, of which no datagram has arrived since. */
export class RestoredSession extends Session {
  readonly saved: SavedSession;

  constructor(saved: SavedSession) {
    const view = new DataView(Uint8Array.fromHex(saved.session).buffer);
    super(view.getInt32(0), view.getInt32(4), view.getInt32(8));
    this.saved = saved;
  }
}

/** Returns the wall-clock time in a session's first two words. */
export function timeOf(word0: number, word1: number): number {
  return (word0 >>> 0) * TIME_SCALE + (word1 >>> 16);
}

/** Writes a time to the first six bytes of a session. */
export function writeTime(view: DataView, time: number): void {
  view.setUint32(0, Math.floor(time / TIME_SCALE));
  view.setUint16(4, time % TIME_SCALE);
}

/** Returns a session's bytes. */
export function sessionBytes(word0: number, word1: number, word2: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(SESSION_LENGTH));
  view.setInt32(0, word0);
  view.setInt32(4, word1);
  view.setInt32(8, word2);
  return new Uint8Array(view.buffer);
}
