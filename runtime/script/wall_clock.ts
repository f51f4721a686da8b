/** The wall clock beside the loop's monotonic clock, for times that people read later. */

// Implementation
/** `Date.now()` has whole milliseconds; more than this apart, a clock was set, or the machine was suspended. */
const TOLERANCE = 2;
/**
 * The interval at which the clocks are compared to the microsecond (milliseconds): NTP lets them drift by 500 µs a
 * second at most.
 */
const COMPARE_INTERVAL = 1000;

/** The clocks that a {@linkcode WallClock} reads (milliseconds). */
export interface Clocks {
  /** The loop's clock, which nobody sets and which stands still while the machine is suspended. */
  monotonic(): number;
  /** The time since 1970, to the millisecond. */
  wall(): number;
  /** The time since 1970, to the microsecond; slower. */
  preciseWall(): number;
}

const SYSTEM: Clocks = {
  monotonic: () => performance.now(),
  wall: () => Date.now(),
  preciseWall: () => Number(Temporal.Now.instant().epochNanoseconds) / 1e6,
};

/** Turns moments of the loop's clock into times since 1970, also after the clock was set and after a suspend. */
export class WallClock {
  readonly #clocks: Clocks;
  #origin = 0;
  #compared = -Infinity;

  /** @param clocks @default {the system's} */
  constructor(clocks: Clocks = SYSTEM) {
    this.#clocks = clocks;
  }

  /** The time since 1970 at which the loop's clock, as it goes now, was 0 (milliseconds). */
  get origin(): number {
    const { monotonic, wall, preciseWall } = this.#clocks;
    const now = monotonic();
    const drift = wall() - now - this.#origin;
    if (now - this.#compared >= COMPARE_INTERVAL || drift > TOLERANCE || drift < -TOLERANCE) {
      this.#origin = preciseWall() - now;
      this.#compared = now;
    }
    return this.#origin;
  }
}
