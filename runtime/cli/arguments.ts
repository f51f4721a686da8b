/** Parser of a subcommand's arguments: words and flags. */

// @ts-types="../script/parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { nearest, UsageError } from "../script/failure.ts";
import { refuseValues } from "../script/flags.ts";

/** Arguments that a subcommand accepts. */
export interface CommandForm {
  /** Output of `--help` and `-h`. */
  readonly usage: string;
  /** Flags with a value. @default {[]} */
  readonly strings?: readonly string[];
  /** Flags without a value. @default {[]} */
  readonly booleans?: readonly string[];
  /** Maximum words. @default {1} */
  readonly maxWords?: number;
}

/** Parsed arguments. */
export interface CommandLine {
  /** Arguments that are not flags. */
  readonly words: readonly string[];
  /** Values of flags. */
  readonly values: Readonly<Record<string, string | undefined>>;
  /** Flags without a value that are present. */
  readonly flags: ReadonlySet<string>;
}

/**
 * Parses arguments; prints the usage and returns `undefined` if they ask for it.
 *
 * @throws {UsageError} for an unknown flag, a missing value, or too many words.
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
