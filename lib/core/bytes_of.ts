/** The bytes of an array that a script gave, whatever it made of the class. */

const prototype = Object.getPrototypeOf(Uint8Array.prototype) as object;
const tag = getterOf<string | undefined>(Symbol.toStringTag);
const bufferOf = getterOf<ArrayBufferLike>("buffer");
const offsetOf = getterOf<number>("byteOffset");
const lengthOf = getterOf<number>("length");

/**
 * A view of the array's bytes whose length stays as it is. It asks the array itself, so that getters of a subclass, a
 * changed constructor or a buffer that another thread grows cannot make it tell two lengths. A detached array is empty.
 * `undefined` for what is not a `Uint8Array`, a `Proxy` of one included.
 */
export function bytesOf(value: unknown): Uint8Array | undefined {
  if (tag.call(value) !== "Uint8Array") return undefined;
  const length = lengthOf.call(value);
  // A detached buffer takes no views; a view that its buffer has shrunk away from is empty, too.
  return length === 0 ? EMPTY : new Uint8Array(bufferOf.call(value), offsetOf.call(value), length);
}

const EMPTY = new Uint8Array(0);

/** A getter of all typed arrays; the one of the tag gives `undefined` for what is not one. */
function getterOf<T>(name: PropertyKey): (this: unknown) => T {
  return Object.getOwnPropertyDescriptor(prototype, name)!.get as (this: unknown) => T;
}
