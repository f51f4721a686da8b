/** Addresses of buffers, and views of native structures. */

/** Returns the memory address of a buffer, which the caller keeps referenced for as long as the address is used. */
export function addressOf(memory: BufferSource): number {
  return Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory)));
}

/** Writes an address to a native structure, as two little-endian words that start at index `word`. */
export function setAddress(words: Uint32Array, word: number, address: number): void {
  words[word] = address >>> 0;
  words[word + 1] = address / 2 ** 32;
}

/** Returns a view of the bytes of a structure. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
