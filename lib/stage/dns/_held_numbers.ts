/** Numbers in the order of their use, and which of them clients hold: for how long, and in which shares. */

const NONE = -1;

/**
 * Numbers from 0 on in two rings: those that are free to be given to somebody else, and those that are held. Each ring
 * goes from the number that was used last to the one not used for longest; its head stands behind the numbers. Nothing
 * is allocated but for a client's first number.
 */
export class HeldNumbers {
  readonly #capacity: number;
  readonly #holdTime: number;
  /** The client that each number was given to. */
  readonly #clients: (string | undefined)[] = [];
  /** Until when each number is held (milliseconds); 0 when it is free. */
  readonly #heldUntil: Float64Array;
  /** The count of numbers that each client holds. */
  readonly #holdings = new Map<string, number>();
  #held = 0;
  /** The time (monotonic milliseconds); 0 as long as nobody has told it. */
  #now = 0;
  readonly #newer: Int32Array;
  readonly #older: Int32Array;
  readonly #free: number;
  readonly #holding: number;

  /** @param holdTime For how long a number is held after each use (milliseconds). */
  constructor(capacity: number, holdTime: number) {
    this.#capacity = capacity;
    this.#holdTime = holdTime;
    this.#heldUntil = new Float64Array(capacity);
    this.#newer = new Int32Array(capacity + 2);
    this.#older = new Int32Array(capacity + 2);
    this.#free = capacity;
    this.#holding = capacity + 1;
    this.clear();
  }

  /** Forgets all numbers. */
  clear(): void {
    this.#clients.length = 0;
    this.#heldUntil.fill(0);
    this.#holdings.clear();
    this.#held = 0;
    for (const head of [this.#free, this.#holding]) this.#newer[head] = this.#older[head] = head;
  }

  /** Tells the time. */
  advance(now: number): void {
    if (this.#now === 0 && this.#held > 0) {
      // Restored before the first breath.
      for (let at = this.#older[this.#holding]!; at !== this.#holding; at = this.#older[at]!) {
        this.#heldUntil[at]! += now;
      }
    }
    this.#now = now;
  }

  /** Frees the numbers whose time is over. */
  release(): void {
    for (let number = this.#newer[this.#holding]!; number !== this.#holding;) {
      if (this.#heldUntil[number]! > this.#now) return;
      const next = this.#newer[number]!;
      this.#heldUntil[number] = 0;
      this.#held--;
      this.#count(this.#clients[number], -1);
      this.#relink(number, this.#free);
      number = next;
    }
  }

  /** Adds a number that is free. */
  add(number: number): void {
    this.#clients[number] = undefined;
    this.#link(number, this.#free);
  }

  /** Takes out the free number that was not used for longest; -1 when none is free. */
  take(): number {
    const number = this.#newer[this.#free]!;
    if (number === this.#free) return NONE;
    this.#unlink(number);
    return number;
  }

  /** Tells whether a client holds fewer numbers than are left for others. */
  mayHold(client: string): boolean {
    return (this.#holdings.get(client) ?? 0) < this.#capacity - this.#held;
  }

  /** Gives a number to a client, which holds it from now on; `false` when it may not. */
  give(number: number, client: string): boolean {
    if (client !== this.#clients[number] && this.mayHold(client)) {
      if (this.#heldUntil[number]! > 0) {
        this.#count(this.#clients[number], -1);
        this.#count(client, 1);
      }
      this.#clients[number] = client;
    }
    // Another client may hold it in its share.
    if (this.#heldUntil[number] === 0 && client !== this.#clients[number]) return false;
    this.use(number);
    return this.#holdTime === 0 || this.#heldUntil[number]! > 0;
  }

  /** Marks a number as used last, and holds it anew if a client has it. */
  use(number: number): void {
    const client = this.#clients[number];
    const isHeld = this.#heldUntil[number]! > 0;
    if (isHeld || client !== undefined && this.mayHold(client)) {
      this.#hold(number, this.#now + this.#holdTime);
    } else this.#relink(number, this.#free);
  }

  /** Adds a number as it was: with how much of its time is left (milliseconds), and its client. */
  restore(number: number, left: number, client: string | undefined): void {
    this.add(number);
    this.#clients[number] = client;
    if (left > 0) this.#hold(number, this.#now + Math.min(left, this.#holdTime));
  }

  /** The numbers with the time that is left and the client, from the one that was used last on; the held ones first. */
  *entries(): Generator<[number: number, left: number, client: string | undefined], void, void> {
    for (const head of [this.#holding, this.#free]) {
      for (let at = this.#older[head]!; at !== head; at = this.#older[at]!) {
        yield [at, Math.max(0, Math.ceil(this.#heldUntil[at]! - this.#now)), this.#clients[at]];
      }
    }
  }

  #hold(number: number, until: number): void {
    if (this.#holdTime === 0) return this.#relink(number, this.#free);
    if (this.#heldUntil[number] === 0) {
      this.#held++;
      this.#count(this.#clients[number], 1);
    }
    this.#heldUntil[number] = until;
    this.#relink(number, this.#holding);
  }

  #count(client: string | undefined, change: number): void {
    if (client === undefined) return;
    const count = (this.#holdings.get(client) ?? 0) + change;
    if (count > 0) this.#holdings.set(client, count);
    else this.#holdings.delete(client);
  }

  /** Makes a number the one that was used last of a ring. */
  #relink(number: number, head: number): void {
    if (this.#older[head] === number) return;
    this.#unlink(number);
    this.#link(number, head);
  }

  #link(number: number, head: number): void {
    const first = this.#older[head]!;
    this.#older[head] = number;
    this.#newer[number] = head;
    this.#older[number] = first;
    this.#newer[first] = number;
  }

  #unlink(number: number): void {
    this.#older[this.#newer[number]!] = this.#older[number]!;
    this.#newer[this.#older[number]!] = this.#newer[number]!;
  }
}
