/** Checks of options and arguments. Errors state the rule and the value. */

/** Kinds of option values. */
type Kind = "boolean" | "function" | "list" | "number" | "object" | "text" | "texts";

/** Names of all options of an interface, with the kind of each value and whether it is needed. */
export type OptionKinds<Options> = {
  readonly [Name in keyof Required<Options>]: Kind | "optional" | "needed" | `needed ${Kind}`;
};

/** Rules of the kinds, as error messages state them. */
const KINDS: Record<string, [rule: string, holds: (value: unknown) => boolean]> = {
  boolean: ["be true or false", (value) => typeof value === "boolean"],
  function: ["be a function", (value) => typeof value === "function"],
  list: ["be an array", Array.isArray],
  number: ["be a number", (value) => typeof value === "number"],
  object: ["be an object", (value) => typeof value === "object" && value !== null],
  text: ["be a string", (value) => typeof value === "string"],
  texts: ["be a string or an iterable of strings", (value) => Symbol.iterator in Object(value)],
};

/**
 * Checks the names of the options in an object, and the kinds of their values.
 *
 * @param attempt Text after "Cannot", such as `open a device`.
 * @throws {TypeError} for an unknown option, a needed one that is missing, and a value of the wrong kind.
 */
export function checkOptions<Options>(attempt: string, options: Options, kinds: OptionKinds<Options>): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(`Cannot ${attempt}: options must be an object, ${gotValue(options)}`);
  }
  for (const name of Object.keys(options)) {
    if (Object.hasOwn(kinds, name)) continue;
    throw new TypeError(
      `Cannot ${attempt}: there is no option "${name}": options are ${Object.keys(kinds).join(", ")}`,
    );
  }
  for (const [name, kind] of Object.entries(kinds)) {
    const value = (options as Record<string, unknown>)[name];
    const isNeeded = (kind as string).startsWith("needed");
    if (value === undefined && !isNeeded) continue;
    if (value === undefined) throw new TypeError(`Cannot ${attempt}: ${name} is missing`);
    const [rule, holds] = KINDS[(kind as string).replace("needed ", "")] ?? [];
    if (holds?.(value) === false) {
      throw new TypeError(`Cannot ${attempt}: ${name} must ${rule}, ${gotValue(value)}`);
    }
  }
}

/**
 * Checks an integer.
 *
 * @throws {TypeError} when it is not a number.
 * @throws {RangeError} when it is not an integer from `min` to `max`.
 */
export function checkInteger(attempt: string, name: string, value: unknown, min: number, max: number): void {
  if (Number.isInteger(value) && value as number >= min && value as number <= max) return;
  let bounds = ` from ${min} to ${max}`;
  if (max === Number.MAX_SAFE_INTEGER) bounds = ` from ${min} to 2^53 - 1`;
  if (max === Infinity) bounds = ` of at least ${min}`;
  if (min === Number.MIN_SAFE_INTEGER) bounds = " between -2^53 and 2^53";
  const message = `Cannot ${attempt}: ${name} must be an integer${bounds}, ${gotValue(value)}`;
  throw typeof value === "number" ? new RangeError(message) : new TypeError(message);
}

/**
 * Checks a number that need not be an integer, such as a limit of `Infinity`.
 *
 * @throws {TypeError} when it is not a number.
 * @throws {RangeError} when it is below `min`.
 */
export function checkMin(attempt: string, name: string, value: unknown, min: number): void {
  if (typeof value === "number" && value >= min) return;
  const message = `Cannot ${attempt}: ${name} must be at least ${min}, ${gotValue(value)}`;
  throw typeof value === "number" ? new RangeError(message) : new TypeError(message);
}

/** Formats the end of an error message about a value: `got 40`, `got "x"`, `got an array`. */
export function gotValue(value: unknown): string {
  switch (typeof value) {
    case "string":
      return `got ${JSON.stringify(value)}`;
    case "object":
      return value === null ? "got null" : Array.isArray(value) ? "got an array" : "got an object";
    case "bigint":
      return `got ${value}n`;
    case "function":
    case "symbol":
      return `got a ${typeof value}`;
    default:
      return `got ${value}`;
  }
}
