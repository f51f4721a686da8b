/**
 * Addresses of a peer with a name: selects the address in use, and decides when to look the name up again.
 *
 *     unreachable ────────────────► the next address, at once
 *     sent, nothing received ─────► the next address, after 3 s; after 15 s of silence if it has replied before
 *     either, for longer ─────────► another look-up of the name, after 5 s, 10 s and so on, up to 5 minutes
 *     received ───────────────────► no change
 */

import type { AddressPort } from "./host_port.ts";

// Implementation
/** Interval between calls of {@linkcode PeerAddresses.check} (milliseconds). */
export const CHECK_INTERVAL = 1000;
/** Silence after which an address that never replied is left; doubled after each round, up to the maximum. */
const FIRST_SILENCE = 3000;
const MAX_SILENCE = 60_000;
/** Silence after which an address that has replied is left; longer, since some traffic is one-way. */
const SILENCE = 15_000;
/** Time before the name is looked up again; doubled each time, up to the maximum. */
const FIRST_LOOK_UP = 5000;
const MAX_LOOK_UP = 300_000;

/** Addresses of one peer. */
export class PeerAddresses {
  #list: readonly AddressPort[];
  #index = 0;
  /** True if the address in use has replied. */
  #replied = false;
  /** True if packets were received or sent since the last check. */
  #received = false;
  #sent = false;
  /** Addresses that were unreachable since the last check. */
  readonly #unreachable = new Set<number>();
  /** Time during which packets were sent but none received. */
  #silence = 0;
  #silenceLimit = FIRST_SILENCE;
  /** Number of consecutive addresses that were left because of their silence. */
  #givenUp = 0;
  /** True if the address in use has changed and no packet has been received since. */
  #isLost = false;
  /** Time since the last look-up, and time before the next one. */
  #sinceLookUp = 0;
  #lookUpAfter = FIRST_LOOK_UP;

  /** @param list At least one address; the first is in use. */
  constructor(list: readonly AddressPort[]) {
    this.#list = list;
  }

  /** All addresses. */
  get list(): readonly AddressPort[] {
    return this.#list;
  }

  /** Index of the address in use. */
  get index(): number {
    return this.#index;
  }

  /** The address in use. */
  get current(): AddressPort {
    return this.#list[this.#index]!;
  }

  /** Notes that a packet was sent. */
  sent(): void {
    this.#sent = true;
  }

  /** Notes that a packet came from an address, which is used from now on if the address in use is silent. */
  received(index: number): void {
    if (index === this.#index) {
      this.#received = true;
      this.#replied = true;
    } else if (!this.#received && (!this.#replied || this.#silence > 0)) {
      this.#use(index);
      this.#received = true;
      this.#replied = true;
    }
  }

  /**
   * Leaves an unreachable address; returns false if there is no other address to try.
   *
   * @param isCertain True for an error of this machine. Errors from the network can be forged, so they are ignored
   * while packets arrive.
   */
  unreachable(isCertain: boolean): boolean {
    if (!isCertain && this.#received) return false;
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

  /** Leaves a silent address; returns true if the name should be looked up now. Must be called every second. */
  check(): boolean {
    if (this.#unreachable.size > 0) this.#isLost = true;
    this.#unreachable.clear();
    this.#sinceLookUp += CHECK_INTERVAL;
    if (this.#received) {
      this.#silence = 0;
      this.#silenceLimit = FIRST_SILENCE;
      this.#givenUp = 0;
      this.#isLost = false;
      this.#lookUpAfter = FIRST_LOOK_UP;
    } else if (this.#sent) {
      this.#silence += CHECK_INTERVAL;
    }
    this.#received = false;
    this.#sent = false;
    if (this.#silence >= (this.#replied ? SILENCE : this.#silenceLimit)) this.#moveOn();
    if (!this.#isLost || this.#sinceLookUp < this.#lookUpAfter) return false;
    this.#sinceLookUp = 0;
    this.#lookUpAfter = Math.min(2 * this.#lookUpAfter, MAX_LOOK_UP);
    return true;
  }

  /** Sets the addresses of a new look-up. Keeps the address in use if it is among them or works. */
  update(list: readonly AddressPort[]): void {
    const { current } = this;
    const index = list.findIndex(({ host }) => host === current.host);
    this.#unreachable.clear();
    if (index < 0 && (this.#received || this.#replied && this.#silence === 0)) {
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
    this.#replied = false;
    this.#silence = 0;
  }
}
