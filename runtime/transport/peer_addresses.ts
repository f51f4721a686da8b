/**
 * A peer's addresses: which of those that its name has is in use, and when the name is looked up again.
 *
 *     unreachable ─────────────► the next address, at once
 *     sent, nothing heard ─────► the next address, after 3 s; after 15 s of silence if it has answered before
 *     either, for longer ──────► look the name up again: after 5 s, 10 s, … up to 5 minutes
 *     heard ───────────────────► nothing changes
 */

import type { AddressPort } from "./host_port.ts";

// Implementation
/** The interval between calls of {@linkcode PeerAddresses.check} (milliseconds). */
export const CHECK_INTERVAL = 1000;
/** Silence after which an address is given up that has never answered, doubled after each round up to the limit. */
const FIRST_SILENCE = 3000;
const MAX_SILENCE = 60_000;
/** The same for an address that has answered: some traffic goes one way. */
const SILENCE = 15_000;
/** The wait before the name is looked up again, doubled each time up to the limit. */
const FIRST_LOOK_UP = 5000;
const MAX_LOOK_UP = 300_000;

/** The addresses of one peer. */
export class PeerAddresses {
  #list: readonly AddressPort[];
  #index = 0;
  /** True if the address in use has answered. */
  #answered = false;
  /** Events since the last check. */
  #heard = false;
  #sent = false;
  /** Addresses that were unreachable since the last check. */
  readonly #unreachable = new Set<number>();
  /** The time for which packets have been sent and nothing was heard. */
  #silence = 0;
  #silenceLimit = FIRST_SILENCE;
  /** The number of addresses in a row that were given up for their silence. */
  #givenUp = 0;
  /** True if an address was given up since the peer was last heard. */
  #isLost = false;
  /** The time since the name was looked up, and the time to wait. */
  #sinceLookUp = 0;
  #lookUpAfter = FIRST_LOOK_UP;

  /** @param list At least one; the first is in use. */
  constructor(list: readonly AddressPort[]) {
    this.#list = list;
  }

  /** All of them. */
  get list(): readonly AddressPort[] {
    return this.#list;
  }

  /** The index of the one in use. */
  get index(): number {
    return this.#index;
  }

  /** The one in use. */
  get current(): AddressPort {
    return this.#list[this.#index]!;
  }

  /** Notes that something was sent. */
  sent(): void {
    this.#sent = true;
  }

  /** Notes that the peer was heard from this address, which is used from now on if the one in use is silent. */
  heard(index: number): void {
    if (index === this.#index) {
      this.#heard = true;
      this.#answered = true;
    } else if (!this.#heard && (!this.#answered || this.#silence > 0)) {
      this.#use(index);
      this.#heard = true;
      this.#answered = true;
    }
  }

  /**
   * Moves on from an address that cannot be reached; returns whether there was another one to try.
   *
   * @param isCertain Whether this machine says so. Errors from the network may be forged: a peer that is heard stays.
   */
  unreachable(isCertain: boolean): boolean {
    if (!isCertain && this.#heard) return false;
    this.#unreachable.add(this.#index);
    const { length } = this.#list;
    for (let step = 1; step < length; step++) {
      const next = (this.#index + step) % length;
      if (this.#unreachable.has(next)) continue;
      this.#use(next);
      return true;
    }
    return false;
  }

  /** To be called every second. Moves on from a silent address; returns whether to look the name up now. */
  check(): boolean {
    if (this.#unreachable.size > 0) this.#isLost = true;
    this.#unreachable.clear();
    this.#sinceLookUp += CHECK_INTERVAL;
    if (this.#heard) {
      this.#silence = 0;
      this.#silenceLimit = FIRST_SILENCE;
      this.#givenUp = 0;
      this.#isLost = false;
      this.#lookUpAfter = FIRST_LOOK_UP;
    } else if (this.#sent) {
      this.#silence += CHECK_INTERVAL;
    }
    this.#heard = false;
    this.#sent = false;
    if (this.#silence >= (this.#answered ? SILENCE : this.#silenceLimit)) this.#moveOn();
    if (!this.#isLost || this.#sinceLookUp < this.#lookUpAfter) return false;
    this.#sinceLookUp = 0;
    this.#lookUpAfter = Math.min(2 * this.#lookUpAfter, MAX_LOOK_UP);
    return true;
  }

  /** Takes what the name has now. The address in use stays if the name still has it, or if it works after all. */
  update(list: readonly AddressPort[]): void {
    const { current } = this;
    const index = list.findIndex(({ host }) => host === current.host);
    this.#unreachable.clear();
    if (index < 0 && (this.#heard || this.#answered && this.#silence === 0)) {
      this.#list = [current, ...list];
      this.#index = 0;
      return;
    }
    this.#list = list;
    this.#index = Math.max(index, 0);
    if (index < 0) this.#restart();
  }

  #moveOn(): void {
    this.#silence = 0;
    this.#isLost = true;
    if (++this.#givenUp % this.#list.length === 0) {
      this.#silenceLimit = Math.min(2 * this.#silenceLimit, MAX_SILENCE);
    }
    this.#use((this.#index + 1) % this.#list.length);
  }

  #use(index: number): void {
    if (index === this.#index && this.#list.length === 1) return;
    this.#index = index;
    this.#restart();
  }

  #restart(): void {
    this.#answered = false;
    this.#silence = 0;
  }
}
