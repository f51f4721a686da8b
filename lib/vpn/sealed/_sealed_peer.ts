/** A peer of the sealed protocol, with its pre-shared key and the sessions of both sides. */

import { Peer, type PeerOptions } from "../peers.ts";
import { Attempts } from "./_attempts.ts";
import { SESSION_LENGTH } from "./_datagram.ts";
import type { PreSharedKey } from "./_pre_shared_key.ts";
import {
  ReceivingSession,
  type RestoredSession,
  SendingSession,
  sessionBytes,
  writeTime,
} from "./_sessions.ts";

// Implementation
/** Limits of a session (datagrams, milliseconds). */
const MAX_DATAGRAMS = 2 ** 32;
const MAX_AGE = 2 * 60 * 60_000;
/** Time without an authentic datagram after which the peer may have restarted and lost the session (milliseconds). */
const SILENCE = 10_000;
/** Attempts to open a datagram of an unknown session. */
const ATTEMPTS_PER_SECOND = 100;
const ATTEMPTS_BURST = 50;

/** A remote machine with its key and its sessions, and those of this side for it. */
export class SealedPeer extends Peer {
  readonly psk: PreSharedKey;
  /** This side's session. */
  sending: SendingSession | undefined;
  /** The peer's newest session. */
  current: ReceivingSession | undefined;
  /** The session before, for datagrams that were overtaken. */
  previous: ReceivingSession | undefined;
  /** The newest session of a saved state, until another is accepted. */
  restored: RestoredSession | undefined;
  /** Time in the peer's newest session. */
  newestTime = -Infinity;
  /** Time at which the peer's newest session was accepted (monotonic milliseconds). */
  acceptedAt = -Infinity;
  /** Time of the last datagram sent (monotonic milliseconds). */
  lastSent = -Infinity;
  /** Interval of keepalives before the first authentic datagram (milliseconds). */
  retry: number;
  /** Limit of attempts with unknown sessions. */
  readonly attempts: Attempts = new Attempts(ATTEMPTS_PER_SECOND, ATTEMPTS_BURST);
  readonly #session = new Uint8Array(SESSION_LENGTH);
  readonly #sessionView = new DataView(this.#session.buffer);
  /** Time of this side's last session, and the latest of all. */
  #lastTime = -Infinity;
  #latestTime = -Infinity;

  /** Creates a peer that belongs to no protocol yet, and takes the key. */
  constructor(options: PeerOptions, psk: PreSharedKey, retry: number) {
    super(options);
    this.psk = psk;
    this.retry = retry;
  }

  /**
   * Reports whether this side needs a new session: its limits are reached, or the peer may not accept this one any more,
   * because it has restarted. A peer that restarted either sends a session of its own, or is silent.
   */
  needsSession(now: number): boolean {
    const { sending } = this;
    if (sending === undefined) return true;
    const age = now - sending.startedAt;
    if (age <= SILENCE) return sending.key.counter >= MAX_DATAGRAMS;
    return age > MAX_AGE || sending.key.counter >= MAX_DATAGRAMS ||
      now - this.lastReceived > SILENCE || this.acceptedAt - sending.startedAt > SILENCE;
  }

  /**
   * Starts a session of this side. Its time is later than those before, even if the wall clock was set back, since a peer
   * that accepted them accepts no other. But a peer with the right time never accepted sessions of a clock that was far
   * ahead, and accepts only the time of now. Until it is heard, sessions take both forms in turn.
   */
  startSending(
    wallClock: number,
    maxClockError: number,
    now: number,
    memory: Uint8Array<ArrayBuffer>,
    random: (bytes: Uint8Array) => unknown,
  ): SendingSession {
    const wall = Math.floor(wallClock);
    const isUnheard = this.lastReceived < (this.sending?.startedAt ?? -Infinity);
    if (isUnheard && this.#latestTime - wall > maxClockError) {
      this.#lastTime = this.#lastTime === this.#latestTime ? wall : this.#latestTime + 1;
    } else this.#lastTime = Math.max(wall, this.#lastTime + 1);
    this.#latestTime = Math.max(this.#latestTime, this.#lastTime);
    random(this.#session);
    writeTime(this.#sessionView, this.#lastTime);
    this.sending?.key[Symbol.dispose]();
    this.sending = new SendingSession(this.#sessionView, this.psk.sealing(this.#session, memory), now);
    return this.sending;
  }

  /** Returns a session of the peer, to be accepted if a datagram of it is authentic. */
  candidate(
    word0: number,
    word1: number,
    word2: number,
    memory: Uint8Array<ArrayBuffer>,
  ): ReceivingSession {
    const key = this.psk.opening(sessionBytes(word0, word1, word2), memory);
    return new ReceivingSession(word0, word1, word2, key);
  }

  /** Accepts a session as the peer's newest. */
  accept(session: ReceivingSession, now: number): void {
    this.previous?.key[Symbol.dispose]();
    this.previous = this.current;
    this.current = session;
    this.newestTime = session.time;
    this.acceptedAt = now;
    this.restored = undefined;
  }

  /** Disposes of all keys. */
  close(): void {
    for (const session of [this.sending, this.current, this.previous]) session?.key[Symbol.dispose]();
    this.sending = this.current = this.previous = undefined;
    this.psk.close();
  }
}
