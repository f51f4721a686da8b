/** Objects that a console shows as one line instead of all their fields. */

const DENO_INSPECT: unique symbol = Symbol.for("Deno.customInspect");
const NODE_INSPECT: unique symbol = Symbol.for("nodejs.util.inspect.custom");

/** An object whose text is what `console.log` shows. */
export abstract class OneLine {
  /** The line. */
  abstract toString(): string;

  /** For `console.log` and `Deno.inspect`. */
  [DENO_INSPECT](): string {
    return this.toString();
  }

  /** The same for `node:util`. */
  [NODE_INSPECT](): string {
    return this.toString();
  }
}
