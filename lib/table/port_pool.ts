/** The free ports of one outside address: taken by number or by chance, as quickly when few are left as when all are. */

// Specification: RFC 4787 section 4.2.2
/** Ports below this are mapped to such ports, and others to others (REQ-3 a). */
const FIRST_UNPRIVILEGED = 1024;

// Implementation
const PORTS = 65_536;
/** Ports are grouped by privilege and by parity, which RFC 4787's REQ-4 keeps. */
const GROUPS = 4;

function groupOf(port: number): number {
  return (port < FIRST_UNPRIVILEGED ? 0 : 2) + (port & 1);
}

/** A set of ports. */
export class PortPool {
  /** The ports, group by group; in each group the free ones come first. */
  readonly #order = new Uint16Array(PORTS);
  /** Where each port stands in that order. */
  readonly #place = new Uint16Array(PORTS);
  readonly #start = new Uint32Array(GROUPS);
  readonly #free = new Uint32Array(GROUPS);

  /** A pool of the ports for which this is true, all free. */
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

  /** Takes this port; returns whether it was free. */
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

  /** Takes a free port, as much like this one as there is, by a whole number from 0 to 2^32 - 1; -1 with none. */
  takeLike(port: number, chance: number): number {
    const wanted = groupOf(port);
    for (let other = 0; other < GROUPS; other++) {
      // The other parity before the other privilege.
      const group = wanted ^ other;
      const free = this.#free[group]!;
      if (free === 0) continue;
      const taken = this.#order[this.#start[group]! + chance % free]!;
      this.take(taken);
      return taken;
    }
    return -1;
  }

  /** Gives a port back that was taken. */
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
