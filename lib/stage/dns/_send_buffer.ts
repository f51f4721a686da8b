/** Answers that wait to be sent over TCP, and to be acknowledged. */

// Specification
/** RFC 1035 section 4.2.2: a message has its length in front (bytes). */
export const LENGTH = 2;

/** Messages with their lengths in front, as a row of bytes that shrinks at its start. */
export class SendBuffer {
  readonly #messages: Uint8Array[] = [];
  /** The number of bytes of the first message that are gone. */
  #start = 0;
  #length = 0;

  /** The number of bytes that wait. */
  get length(): number {
    return this.#length;
  }

  /** Adds a message. */
  push(message: Uint8Array): void {
    const framed = new Uint8Array(LENGTH + message.length);
    framed[0] = message.length >> 8;
    framed[1] = message.length;
    framed.set(message, LENGTH);
    this.#messages.push(framed);
    this.#length += framed.length;
  }

  /** Copies `length` bytes from `from` on to a place in `target`. */
  copy(from: number, length: number, target: Uint8Array, at: number): void {
    let skip = this.#start + from;
    for (const message of this.#messages) {
      if (skip >= message.length) {
        skip -= message.length;
        continue;
      }
      const count = Math.min(length, message.length - skip);
      target.set(message.subarray(skip, skip + count), at);
      at += count;
      length -= count;
      skip = 0;
      if (length === 0) return;
    }
  }

  /** Takes bytes off the start; returns whether a message has gone with its last one. */
  release(count: number): boolean {
    this.#length -= count;
    this.#start += count;
    const before = this.#messages.length;
    while (this.#messages.length > 0 && this.#start >= this.#messages[0]!.length) {
      this.#start -= this.#messages.shift()!.length;
    }
    return this.#messages.length < before;
  }
}
