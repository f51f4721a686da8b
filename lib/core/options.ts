/** Checks of options and arguments. Errors state the rule and the value. */

/** Kind of an option's value: one with a name, one of these values, an object of this class, or nested options. */
export type OptionKind =
  | "any"
  | "boolean"
  | "direction"
  | "function"
  | "iterable"
  | "list"
  | "number"
  | "numbers"
  | "object"
  | "text"
  | "texts"
  | readonly (string | number | boolean)[]
  | (abstract new (...args: never[]) => object)
  | { readonly [option: string]: OptionKind };

/** Rules of the kinds, as error messages state them, and their checks. */
const KINDS: Record<Extract<OptionKind, string>, [rule: string, holds: (value: unknown) => boolean]> = {
  any: ["", () => true],
  boolean: ["be true or false", (value) => typeof value === "boolean"],
  direction: ["be Direction.Outbound or Direction.Inbound", (value) => value === 0 || value === 1],
  function: ["be a function", (value) => typeof value === "function"],
  list: ["be an array", (value) => Array.isArray(value) && !hasGaps(value)],
  number: ["be a number", isNumber],
  numbers: ["be an array of numbers", (value) => isArrayOf(value, isNumber)],
  object: ["be an object", (value) => typeof value === "object" && value !== null],
  text: ["be a string", isText],
  texts: ["be a string or an array of strings", (value) => isText(value) || isArrayOf(value, isText)],
  iterable: ["be a string or an iterable of strings", isTextOrIterable],
};

/** Names of all options of an interface, with the kinds of their values. */
export type OptionKinds<Options> = { readonly [Name in keyof Required<Options>]: OptionKind };

/**
 * Checks the names of the options in an object, and the kinds of their values.
 *
 * @param attempt Text after "Cannot", such as `open a device`.
 * @param needed Names of options that must be given.
 * @param place Name of the option that holds these, for errors.
 * @throws {TypeError} for an unknown option, a needed one that is missing, and a value of the wrong kind.
 */
export function checkOptions<Options>(
  attempt: string,
  options: Options,
  kinds: OptionKinds<Options>,
  needed: readonly (keyof Options)[] = [],
  place?: string,
): void {
  checkOption(attempt, place ?? "options", options, "object");
  const prefix = place === undefined ? "" : `${place}.`;
  for (const name of Object.keys(options as object)) {
    if (Object.hasOwn(kinds, name)) continue;
    throw new TypeError(
      `Cannot ${attempt}: there is no option "${prefix}${name}": options are ${
        Object.keys(kinds).join(", ")
      }`,
    );
  }
  for (const name of Object.keys(kinds) as (keyof Options & string)[]) {
    const value = options[name];
    if (value !== undefined) checkOption(attempt, prefix + name, value, kinds[name]);
    else if (needed.includes(name)) throw new TypeError(`Cannot ${attempt}: ${prefix}${name} is missing`);
  }
}

/**
 * Checks the kind of a value.
 *
 * @throws {TypeError} for a value of another kind, and as {@linkcode checkOptions} does for nested options.
 */
export function checkOption(attempt: string, name: string, value: unknown, kind: OptionKind): void {
  let rule: string;
  let holds: boolean;
  if (typeof kind === "string") {
    rule = KINDS[kind][0];
    holds = KINDS[kind][1](value);
  } else if (typeof kind === "function") {
    rule = `be ${/^[AEIO]/.test(kind.name) ? "an" : "a"} ${kind.name}`;
    holds = value instanceof kind;
  } else if (kind instanceof Array) {
    const values = kind.map((one) => JSON.stringify(one));
    rule = `be ${values.slice(0, -1).join(", ")} or ${values.at(-1)}`;
    holds = kind.includes(value as string);
  } else return checkOptions(attempt, value as object, kind, [], name);
  if (!holds) throw new TypeError(`Cannot ${attempt}: ${name} must ${rule}, ${gotValue(value)}`);
}

function isText(value: unknown): boolean {
  return typeof value === "string";
}

function isNumber(value: unknown): boolean {
  return typeof value === "number";
}

function isArrayOf(value: unknown, holds: (element: unknown) => boolean): boolean {
  return Array.isArray(value) && !hasGaps(value) && value.every(holds);
}

/** Reports whether elements of an array are missing, as in `[1, , 2]`: some methods of arrays skip them. */
function hasGaps(array: readonly unknown[]): boolean {
  return Object.keys(array).length < array.length;
}

/** An iterable other than an array may be iterable only once, so its values are not checked. */
function isTextOrIterable(value: unknown): boolean {
  if (Array.isArray(value)) return isArrayOf(value, isText);
  return Symbol.iterator in Object(value) && !(value instanceof Map);
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
      if (Array.isArray(value)) return hasGaps(value) ? "got an array with gaps" : "got an array";
      return value === null ? "got null" : "got an object";
    case "bigint":
      return `got ${value}n`;
    case "function":
    case "symbol":
      return `got a ${typeof value}`;
    default:
      return `got ${value}`;
  }
}
