/** Checks of options and arguments. Errors state the rule and the value. */

/** Names of all options of an interface; `"needed"` for those without a default. */
export type OptionNames<Options> = { readonly [Name in keyof Required<Options>]: "needed" | "optional" };

/**
 * Checks the names of the options in an object.
 *
 * @param attempt Text after "Cannot", such as `open a device`.
 * @throws {TypeError} for an unknown option, and for a needed one that is missing.
 */
export function checkNames<Options>(attempt: string, options: Options, names: OptionNames<Options>): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(`Cannot ${attempt}: options must be an object, ${gotValue(options)}`);
  }
  for (const name of Object.keys(options)) {
    if (Object.hasOwn(names, name)) continue;
    throw new TypeError(
      `Cannot ${attempt}: there is no option "${name}": options are ${Object.keys(names).join(", ")}`,
    );
  }
  for (const [name, kind] of Object.entries(names)) {
    if (kind === "needed" && (options as Record<string, unknown>)[name] === undefined) {
      throw new TypeError(`Cannot ${attempt}: ${name} is missing`);
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
  if (max === Infinity || max === Number.MAX_SAFE_INTEGER) bounds = ` of at least ${min}`;
  if (min === Number.MIN_SAFE_INTEGER) bounds = "";
  const message = `Cannot ${attempt}: ${name} must be an integer${bounds}, ${gotValue(value)}`;
  throw typeof value === "number" ? new RangeError(message) : new TypeError(message);
}

/**
 * Checks a number that need not be an integer, such as a limit of `Infinity`.
 *
 * @throws {RangeError} when it is below `min`, or not a number.
 */
export function checkMin(attempt: string, name: string, value: number, min: number): void {
  if (value >= min) return;
  throw new RangeError(`Cannot ${attempt}: ${name} must be at least ${min}, ${gotValue(value)}`);
}

/** Formats the end of an error message about a value: `got 40`, `got "x"`, `got an array`. */
export function gotValue(value: unknown): string {
  switch (typeof value) {
    case "string":
      return `got ${JSON.stringify(value)}`;
    case "object":
      return value === null ? "got null" : Array.isArray(value) ? "got an array" : "got an object";
    case "function":
    case "symbol":
      return `got a ${typeof value}`;
    default:
      return `got ${value}`;
  }
}
