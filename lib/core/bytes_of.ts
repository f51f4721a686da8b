/** Reads a `Uint8Array` from a script, unaffected by subclasses and changed prototypes. */

const prototype = Object.getPrototypeOf(Uint8Array.prototype) as object;
const tag = getterOf<string | undefined>(Symbol.toStringTag);
const bufferOf = getterOf<ArrayBufferLike>("buffer");
const offsetOf = getterOf<number>("byteOffset");
const lengthOf = getterOf<number>("length");

/**
 * Returns a view of the array's bytes with a fixed length, empty for a detached array; `undefined` for any value but a
 * `Uint8Array`, such as a `Proxy` of one. It reads the array's internal slots, so that getters of a subclass, a changed
 * constructor, or a buffer that another thread grows cannot change the length.
 */
export function bytesOf(value: unknown): Uint8Array | undefined {
  if (tag.call(value) !== "Uint8Array") return undefined;
  const length = lengthOf.call(value);
  // A detached buffer allows no views. The length is also 0 if the buffer has shrunk below the view.
  return length === 0 ? EMPTY : new Uint8Array(bufferOf.call(value), offsetOf.call(value), length);
}

const EMPTY = new Uint8Array(0);

/** Returns a getter shared by all typed arrays; that of the tag returns `undefined` for other values. */
function getterOf<T>(name: PropertyKey): (this: unknown) => T {
  return Object.getOwnPropertyDescriptor(prototype, name)!.get as (this: unknown) => T;
}
