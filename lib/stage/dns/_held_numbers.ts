/** Allocation of numbers in order of use, with hold times and a fair share for each client. */

const NONE = -1;

/**
 * Numbers from 0 in two linked rings: free numbers, and numbers that clients hold. Each ring goes from the most to the
 * least recently used number; its head is an index after the last number. Memory is allocated only for a client's first
 * number.
 */
export class HeldNumbers {
  readonly #capacity: number;
  readonly #holdTime: number;
  /** Client that each number was given to. */
  readonly #clients: (string | undefined)[] = [];
  /** End of each number's hold time (milliseconds); 0 when it is free. */
  readonly #heldUntil: Float64Array;
  /** Count of numbers that each client holds. */
  readonly #holdings = new Map<string, number>();
  #held = 0;
  /** Current time (monotonic milliseconds); 0 before the first `advance`. */
  #now = 0;
  readonly #newer: Int32Array;
  readonly #older: Int32Array;
  readonly #free: number;
  readonly #holding: number;

  /** @param holdTime Time that a number is held after each use (milliseconds). */
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

  clear(): void {
    this.#clients.length = 0;
    this.#heldUntil.fill(0);
    this.#holdings.clear();
    this.#held = 0;
    for (const head of [this.#free, this.#holding]) this.#newer[head] = this.#older[head] = head;
  }

  /** Sets the current time (monotonic milliseconds). */
  advance(now: number): void {
    if (this.#now === 0 && this.#held > 0) {
      // The numbers were restored before the first breath.
      for (let at = this.#older[this.#holding]!; at !== this.#holding; at = this.#older[at]!) {
        this.#heldUntil[at]! += now;
      }
    }
    this.#now = now;
  }

  /** Frees the numbers whose hold time has ended. */
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

  /** Adds a free number. */
  add(number: number): void {
    this.#clients[number] = undefined;
    this.#link(number, this.#free);
  }

  /** Removes the least recently used free number and returns it; -1 if none is free. */
  take(): number {
    const number = this.#newer[this.#free]!;
    if (number === this.#free) return NONE;
    this.#unlink(number);
    return number;
  }

  /** Reports whether a client holds fewer numbers than are left for others. */
  mayHold(client: string): boolean {
    return (this.#holdings.get(client) ?? 0) < this.#capacity - this.#held;
  }

  /** Gives a number to a client, which holds it from now on; returns false if it may not. */
  give(number: number, client: string): boolean {
    if (client !== this.#clients[number] && this.mayHold(client)) {
      if (this.#heldUntil[number]! > 0) {
        this.#count(this.#clients[number], -1);
        this.#count(client, 1);
      }
      this.#clients[number] = client;
    }
    // Another client may hold it as part of its share.
    if (this.#heldUntil[number] === 0 && client !== this.#clients[number]) return false;
    this.use(number);
    return this.#holdTime === 0 || this.#heldUntil[number]! > 0;
  }

  /** Marks a number as most recently used, and restarts its hold time if a client has it. */
  use(number: number): void {
    const client = this.#clients[number];
    const isHeld = this.#heldUntil[number]! > 0;
    if (isHeld || client !== undefined && this.mayHold(client)) {
      this.#hold(number, this.#now + this.#holdTime);
    } else this.#relink(number, this.#free);
  }

  /** Adds a number with its remaining hold time (milliseconds) and client. */
  restore(number: number, left: number, client: string | undefined): void {
    this.add(number);
    this.#clients[number] = client;
    if (left > 0) this.#hold(number, this.#now + Math.min(left, this.#holdTime));
  }

  /** Iterates numbers, remaining hold times and clients: held numbers first, the most recently used first. */
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

  /** Moves a number to the most recently used place of a ring. */
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
