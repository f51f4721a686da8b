/** Reads a `Uint8Array` from a script, unaffected by subclasses and changed prototypes. */

const prototype = Object.getPrototypeOf(Uint8Array.prototype) as object;
const tag = getterOf<string | undefined>(Symbol.toStringTag);
const bufferOf = getterOf<ArrayBufferLike>("buffer");
const offsetOf = getterOf<number>("byteOffset");
const lengthOf = getterOf<number>("length");

/**
 * Returns a view of fixed length of a `Uint8Array`, empty if that is detached; `undefined` for other values, such as a
 * `Proxy` of one. Getters of a subclass, a changed constructor, and a buffer that grows cannot change the length, since it
 * comes from the array's internal slots.
 */
export function bytesOf(value: unknown): Uint8Array | undefined {
  if (tag.call(value) !== "Uint8Array") return undefined;
  const length = lengthOf.call(value);
  // The length is also 0 if the buffer has shrunk below the view. A detached buffer allows no views.
  return length === 0 ? EMPTY : new Uint8Array(bufferOf.call(value), offsetOf.call(value), length);
}

const EMPTY = new Uint8Array(0);

/** Returns a getter of all typed arrays; that of the tag returns `undefined` for other values. */
function getterOf<T>(name: PropertyKey): (this: unknown) => T {
  return Object.getOwnPropertyDescriptor(prototype, name)!.get as (this: unknown) => T;
}
