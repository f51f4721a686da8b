/** Ranges of ports in options. */

import { gotValue } from "../core/options.ts";

// Specification
const MAX_PORT = 0xffff;

/**
 * Reads a port, or a range such as `"80-443"`.
 *
 * @param attempt Text after "Cannot" in errors, such as `forward a port`.
 * @param min Lowest port that is allowed.
 * @throws {TypeError} when the value is no number or text.
 * @throws {SyntaxError} when a text is no port or range.
 * @throws {RangeError} when a port is out of range, or the first is above the last.
 */
export function readPortRange(
  attempt: string,
  name: string,
  value: unknown,
  min: number,
): [first: number, last: number] {
  const message = `Cannot ${attempt}: ${name} must be from ${min} to ${MAX_PORT}, ` +
    `or a range such as "80-443", ${gotValue(value)}`;
  if (typeof value !== "number" && typeof value !== "string") throw new TypeError(message);
  const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(String(value)) ?? [];
  if (first === undefined && typeof value === "string") throw new SyntaxError(message);
  const range: [number, number] = [Number(first), Number(last)];
  if (range[0] >= min && range[0] <= range[1] && range[1] <= MAX_PORT) return range;
  throw new RangeError(message);
}
