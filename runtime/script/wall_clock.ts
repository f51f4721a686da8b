/** Conversion from the loop's monotonic clock to wall-clock time, for timestamps in files. */

// Implementation
/** Difference that indicates a clock step or a suspend; larger than the resolution of `Date.now()` (milliseconds). */
const TOLERANCE = 2;
/** Interval between precise comparisons (milliseconds); NTP slews the clock by at most 500 µs per second. */
const COMPARE_INTERVAL = 1000;

/** Clocks of a {@linkcode WallClock} (milliseconds). */
export interface Clocks {
  /** Reads the loop's monotonic clock, which stops while the machine is suspended. */
  monotonic(): number;
  /** Reads the time since 1970 with millisecond resolution. */
  wall(): number;
  /** Reads the time since 1970 with microsecond resolution; slower. */
  preciseWall(): number;
}

const SYSTEM: Clocks = {
  monotonic: () => performance.now(),
  wall: () => Date.now(),
  preciseWall: () => Number(Temporal.Now.instant().epochNanoseconds) / 1e6,
};

/** Converter from the clock of the loop to the time since 1970, corrected after clock steps and suspends. */
export class WallClock {
  readonly #clocks: Clocks;
  #origin = 0;
  #compared = -Infinity;

  /** @param clocks Clocks to read. @default {the system's} */
  constructor(clocks: Clocks = SYSTEM) {
    this.#clocks = clocks;
  }

  /** Time since 1970 at which the loop's clock, at its current rate, was 0 (milliseconds). */
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
