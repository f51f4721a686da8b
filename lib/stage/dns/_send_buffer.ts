/** Send buffer of a TCP connection: answers from their arrival to their acknowledgment. */

// Specification
/** Bytes of the length before each message (RFC 1035 section 4.2.2). */
export const LENGTH = 2;

/** Messages with their length prefixes, as a byte queue. */
export class SendBuffer {
  readonly #messages: Uint8Array[] = [];
  /** Bytes of the first message that were released. */
  #start = 0;
  #length = 0;

  /** Number of buffered bytes. */
  get length(): number {
    return this.#length;
  }

  push(message: Uint8Array): void {
    const framed = new Uint8Array(LENGTH + message.length);
    framed[0] = message.length >> 8;
    framed[1] = message.length;
    framed.set(message, LENGTH);
    this.#messages.push(framed);
    this.#length += framed.length;
  }

  /** Copies `length` bytes at offset `from` to `target` at offset `at`. */
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

  /** Removes bytes from the start; returns true if they complete a message. */
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
