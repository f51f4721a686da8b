/** Types of the part of `@std/cli/parse-args` that Warren uses; the npm package has none. */

/** Options for {@linkcode parseArgs}. */
export interface ParseOptions {
  /** Flags with a text value. */
  string?: string[];
  /** Flags without a value. */
  boolean?: string[];
  /** Repeatable flags. */
  collect?: string[];
  /** Other names of flags. */
  alias?: Record<string, string>;
  /** Called for each unknown argument. */
  unknown?: (argument: string, key?: string, value?: unknown) => unknown;
}

/** Value of a flag. */
export type ParsedValue = undefined | boolean | string | number | (string | number)[];

/** Flags by name; dotted names are nested. */
export interface ParsedArgs {
  /** Arguments that are not flags. */
  _: (string | number)[];
  /** Value of a flag; dotted flags are nested under their first part. */
  [flag: string]: ParsedValue | Record<string, ParsedValue>;
}

/** Parses a command line. */
export function parseArgs(args: string[], options?: ParseOptions): ParsedArgs;
