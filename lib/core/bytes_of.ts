/** The bytes of an array from a script, safe from subclasses and changed prototypes. */

const prototype = Object.getPrototypeOf(Uint8Array.prototype) as object;
const tag = getterOf<string | undefined>(Symbol.toStringTag);
const bufferOf = getterOf<ArrayBufferLike>("buffer");
const offsetOf = getterOf<number>("byteOffset");
const lengthOf = getterOf<number>("length");

/**
 * A view of the array's bytes, of fixed length. It reads the array's own slots, so getters of a subclass, a
 * changed constructor or a buffer that another thread grows cannot make its length change. A detached array is empty.
 * `undefined` for anything but a `Uint8Array`, such as a `Proxy` of one.
 */
export function bytesOf(value: unknown): Uint8Array | undefined {
  if (tag.call(value) !== "Uint8Array") return undefined;
  const length = lengthOf.call(value);
  // A detached buffer takes no views; a view that its buffer has shrunk away from is empty, too.
  return length === 0 ? EMPTY : new Uint8Array(bufferOf.call(value), offsetOf.call(value), length);
}

const EMPTY = new Uint8Array(0);

/** A getter that all typed arrays share; the tag's returns `undefined` for any other value. */
function getterOf<T>(name: PropertyKey): (this: unknown) => T {
  return Object.getOwnPropertyDescriptor(prototype, name)!.get as (this: unknown) => T;
}
