/** Checks of options and arguments, with errors that state the rule and the value. */

/** The names of all options, complete by type; `"needed"` for those without a default. */
export type OptionNames<Options> = { readonly [Name in keyof Required<Options>]: "needed" | "optional" };

/**
 * Checks the names in an object of options.
 *
 * @param attempt The purpose of the options, which follows "Cannot".
 * @throws {TypeError} for an unknown option, and for a needed one that is missing.
 */
export function checkNames<Options>(attempt: string, options: Options, names: OptionNames<Options>): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(`Cannot ${attempt}: options must be an object, ${gotValue(options)}`);
  }
  for (const name of Object.keys(options)) {
    if (Object.hasOwn(names, name)) continue;
    throw new TypeError(
      `Cannot ${attempt}: there is no option "${name}": ${Object.keys(names).join(", ")} are`,
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
  const bounds = max === Infinity || max === Number.MAX_SAFE_INTEGER
    ? `of at least ${min}`
    : `from ${min} to ${max}`;
  const message = `Cannot ${attempt}: ${name} must be an integer ${bounds}, ${gotValue(value)}`;
  throw typeof value === "number" ? new RangeError(message) : new TypeError(message);
}

/** The end of an error message about a value: `got 40`, `got "x"`, `got an array`. */
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
