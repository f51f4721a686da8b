/** What Warren uses of `@std/cli/parse-args`, whose npm form has no types. */

/** Options for {@linkcode parseArgs}. */
export interface ParseOptions {
  /** Flags with text. */
  string?: string[];
  /** Flags without a value. */
  boolean?: string[];
  /** Flags that may be repeated. */
  collect?: string[];
  /** Other names of flags. */
  alias?: Record<string, string>;
  /** Whether to stop at the first argument that is no flag. */
  stopEarly?: boolean;
  /** Called for what is none of these. */
  unknown?: (argument: string, key?: string, value?: unknown) => unknown;
}

/** The value of a flag. */
export type ParsedValue = undefined | boolean | string | number | (string | number)[];

/** Flags by name; dotted names are nested. */
export interface ParsedArgs {
  /** What is no flag. */
  _: (string | number)[];
  /** What was given for a flag; for a dotted one, by its first part. */
  [flag: string]: ParsedValue | Record<string, ParsedValue>;
}

/** Parses a command line. */
export function parseArgs(args: string[], options?: ParseOptions): ParsedArgs;
