/** Where things lie in this process's memory, and how structures point at them: as two words of 32 bits. */

/** Where memory lies. It has to be kept as long as anything points at it. */
export function addressOf(memory: BufferSource): number {
  return Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory)));
}

/** Writes an address as two words. */
export function setAddress(words: Uint32Array, word: number, address: number): void {
  words[word] = address >>> 0;
  words[word + 1] = address / 2 ** 32;
}
