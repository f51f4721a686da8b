/** Free ports of one outside address: taken by number or at random, in constant time. */

// Specification: RFC 4787 section 4.2.2
/** First unprivileged port: privileged ports are mapped to privileged ports (REQ-3 a). */
const FIRST_UNPRIVILEGED = 1024;

// Implementation
const PORTS = 65_536;
/** Number of groups: ports by privilege and by parity, which is preserved (REQ-4). */
const GROUPS = 4;

function groupOf(port: number): number {
  return (port < FIRST_UNPRIVILEGED ? 0 : 2) + (port & 1);
}

/** Set of free ports. */
export class PortPool {
  /** Ports by group; the free ones of each group come first. */
  readonly #order = new Uint16Array(PORTS);
  /** Index of each port in that order. */
  readonly #place = new Uint16Array(PORTS);
  readonly #start = new Uint32Array(GROUPS);
  readonly #free = new Uint32Array(GROUPS);

  /** Creates a pool of the ports for which `includes` is true, all of them free. */
  constructor(includes: (port: number) => boolean) {
    let place = 0;
    for (let group = 0; group < GROUPS; group++) {
      this.#start[group] = place;
      const [first, end] = group < 2 ? [0, FIRST_UNPRIVILEGED] : [FIRST_UNPRIVILEGED, PORTS];
      for (let port = first + (group & 1); port < end; port += 2) {
        if (!includes(port)) continue;
        this.#order[place] = port;
        this.#place[port] = place++;
      }
      this.#free[group] = place - this.#start[group]!;
    }
  }

  /** Takes a port; returns whether it was free. */
  take(port: number): boolean {
    const group = groupOf(port);
    const place = this.#place[port]!;
    const start = this.#start[group]!;
    const last = start + this.#free[group]! - 1;
    if (place < start || place > last || this.#order[place] !== port) return false;
    this.#swap(place, last);
    this.#free[group]!--;
    return true;
  }

  /** Takes a free port, of the same privilege and parity if possible; -1 for none. `chance` is a random 32-bit integer. */
  takeLike(port: number, chance: number): number {
    const wanted = groupOf(port);
    for (let other = 0; other < GROUPS; other++) {
      // Tries the other parity before the other privilege.
      const group = wanted ^ other;
      const free = this.#free[group]!;
      if (free === 0) continue;
      const taken = this.#order[this.#start[group]! + chance % free]!;
      this.take(taken);
      return taken;
    }
    return -1;
  }

  /** Returns a port to the pool. */
  give(port: number): void {
    const group = groupOf(port);
    this.#swap(this.#place[port]!, this.#start[group]! + this.#free[group]!);
    this.#free[group]!++;
  }

  #swap(one: number, other: number): void {
    const port = this.#order[one]!;
    const second = this.#order[other]!;
    this.#order[one] = second;
    this.#order[other] = port;
    this.#place[second] = one;
    this.#place[port] = other;
  }
}
