/** Parses the arguments of a subcommand: words and flags. */

// @ts-types="../script/parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { nearest, UsageError } from "../script/failure.ts";
import { refuseValues } from "../script/flags.ts";

/** The arguments that a subcommand accepts. */
export interface CommandForm {
  /** Text that `--help` and `-h` print. */
  readonly usage: string;
  /** Names of the flags with a value. @default {[]} */
  readonly strings?: readonly string[];
  /** Names of the flags without a value. @default {[]} */
  readonly booleans?: readonly string[];
  /** Maximum number of words. @default {1} */
  readonly maxWords?: number;
}

/** Parsed arguments. */
export interface CommandLine {
  /** Arguments that are not flags. */
  readonly words: readonly string[];
  /** Values of the flags with a value. */
  readonly values: Readonly<Record<string, string | undefined>>;
  /** Names of the flags without a value that were given. */
  readonly flags: ReadonlySet<string>;
}

/**
 * Parses arguments. For `--help`, prints the usage and returns `undefined`.
 *
 * @throws {UsageError} when a flag is unknown or lacks its value, or when there are too many words.
 */
export function parseCommand(args: readonly string[], form: CommandForm): CommandLine | undefined {
  const { usage, strings = [], maxWords = 1 } = form;
  const booleans = ["help", ...form.booleans ?? []];
  refuseValues(args, booleans, ["h"]);
  const parsed = parseArgs([...args], {
    string: ["_", ...strings],
    boolean: booleans,
    alias: { h: "help" },
    unknown: (argument) => {
      if (!argument.startsWith("-")) return;
      const near = nearest(argument.replace(/^-+/, "").replace(/=.*/s, ""), [...strings, ...booleans]);
      throw new UsageError(
        `${argument} is not a flag${near === undefined ? "" : `: did you mean --${near}?`}`,
      );
    },
  });
  if (parsed.help === true) {
    console.log(usage);
    return undefined;
  }
  const words = parsed._.map(String);
  if (words.length > maxWords) throw new UsageError(`"${words[maxWords]}" is not expected here`);
  const values = Object.fromEntries(
    strings.flatMap((flag) => parsed[flag] === undefined ? [] : [[flag, String(parsed[flag])]]),
  );
  const empty = strings.find((flag) => values[flag] === "");
  if (empty !== undefined) throw new UsageError(`--${empty} needs a value`);
  return { words, values, flags: new Set(booleans.filter((flag) => parsed[flag] === true)) };
}
