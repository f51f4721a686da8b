/** Base class of objects that `console.log` prints as one line. */

const DENO_INSPECT: unique symbol = Symbol.for("Deno.customInspect");
const NODE_INSPECT: unique symbol = Symbol.for("nodejs.util.inspect.custom");

/** An object that `console.log` prints as text instead of fields. */
export abstract class OneLine {
  /** Returns the line. */
  abstract toString(): string;

  /** Returns the line for `console.log` and `Deno.inspect`. */
  [DENO_INSPECT](): string {
    return this.toString();
  }

  /** Returns the line for `node:util`. */
  [NODE_INSPECT](): string {
    return this.toString();
  }
}
