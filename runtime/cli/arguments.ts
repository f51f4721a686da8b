/** The arguments of a subcommand: its words, and its flags. */

// @ts-types="../script/parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { nearest, UsageError } from "../script/failure.ts";
import { refuseValues } from "../script/flags.ts";

/** What a subcommand takes. */
export interface CommandForm {
  /** What `--help` and `-h` print. */
  readonly usage: string;
  /** Flags with a value. @default {[]} */
  readonly strings?: readonly string[];
  /** Flags without one. @default {[]} */
  readonly booleans?: readonly string[];
  /** The most words. @default {1} */
  readonly most?: number;
}

/** What was said. */
export interface CommandLine {
  /** What is no flag. */
  readonly words: readonly string[];
  /** The values of flags that were given. */
  readonly values: Readonly<Record<string, string | undefined>>;
  /** The flags without a value that were given. */
  readonly flags: ReadonlySet<string>;
}

/**
 * Reads a command line; `undefined` when it asked for the usage, which is printed then.
 *
 * @throws {UsageError} for an unknown flag, one that lacks its value, and a word too many.
 */
export function parseCommand(args: readonly string[], form: CommandForm): CommandLine | undefined {
  const { usage, strings = [], most = 1 } = form;
  const booleans = ["help", ...form.booleans ?? []];
  refuseValues(args, booleans, ["h"]);
  const parsed = parseArgs([...args], {
    string: ["_", ...strings],
    boolean: booleans,
    alias: { h: "help" },
    unknown: (argument) => {
      if (!argument.startsWith("-")) return;
      const near = nearest(argument.replace(/^-+/, "").replace(/=.*/s, ""), [...strings, ...booleans]);
      throw new UsageError(`${argument} is no flag${near === undefined ? "" : `: did you mean --${near}?`}`);
    },
  });
  if (parsed.help === true) {
    console.log(usage);
    return undefined;
  }
  const words = parsed._.map(String);
  if (words.length > most) throw new UsageError(`"${words[most]}" is not expected here`);
  const values = Object.fromEntries(
    strings.flatMap((flag) => parsed[flag] === undefined ? [] : [[flag, String(parsed[flag])]]),
  );
  const empty = strings.find((flag) => values[flag] === "");
  if (empty !== undefined) throw new UsageError(`--${empty} needs a value`);
  return { words, values, flags: new Set(booleans.filter((flag) => parsed[flag] === true)) };
}
