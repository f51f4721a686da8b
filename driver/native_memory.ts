/** Addresses of buffers, and pointers in native structures: two 32-bit words each. */

/** Returns the address of a buffer. The caller keeps the buffer alive while anything points at it. */
export function addressOf(memory: BufferSource): number {
  return Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory)));
}

/** Writes an address as two words, little-endian. */
export function setAddress(words: Uint32Array, word: number, address: number): void {
  words[word] = address >>> 0;
  words[word + 1] = address / 2 ** 32;
}
