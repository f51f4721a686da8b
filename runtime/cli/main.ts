/**
 * The `warren` command with its subcommands `run`, `new`, `doctor` and `driver`.
 *
 * @module
 */

import { exit, takeConsole } from "../script/output.ts";
import { ExitCode, nearest, report, UsageError } from "../script/failure.ts";
import { VERSION } from "./version.ts";

/** Runs a subcommand and returns its exit code. The caller prints an error that it throws. */
type Command = (args: readonly string[]) => number | Promise<number>;

/** Subcommands, loaded on demand. */
const COMMANDS: Readonly<Record<string, Command>> = {
  run: async (args) => (await import("./run.ts")).run(args),
  new: async (args) => (await import("./new.ts")).create(args),
  doctor: async (args) => (await import("./doctor.ts")).doctor(args),
  driver: async (args) => (await import("./driver.ts")).driver(args),
};

const USAGE = `Usage: warren COMMAND [flags]

  run SCRIPT [flags]   run a script with the permissions in its first line; for its flags: warren run SCRIPT --help
  new NAME             create a script and its deno.json
  doctor [--repair]    check this machine; undo changes that a crashed process left behind
  driver install       install Wintun, the device driver on Windows
  help [COMMAND]       print this text, or the help of a command
  --version            print the versions of Warren and Deno

Exit code: 0 for success, 1 for an error, 2 for a wrong command line.
`;

/** Runs the `warren` command with these arguments; returns its exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const [word, ...rest] = args;
  const command = word !== undefined && Object.hasOwn(COMMANDS, word) ? COMMANDS[word] : undefined;
  try {
    if (command !== undefined) return await command(rest);
    if (word === "--version" || word === "-V") {
      return print(`warren ${VERSION}, deno ${Deno.version.deno}\n`);
    }
    if (word === "help" && rest[0] !== undefined) return await main([rest[0], "--help"]);
    if (word === "help" || word === "--help" || word === "-h") return print(USAGE);
    throw new UsageError(unknownCommand(word));
  } catch (error) {
    return report(error, command === undefined ? "warren" : `warren ${word}`);
  }
}

function unknownCommand(word: string | undefined): string {
  if (word === undefined) return `a command is missing: ${Object.keys(COMMANDS).join(", ")} or help`;
  const near = /\.m?[jt]s$/.test(word)
    ? `run ${word}`
    : nearest(word, [...Object.keys(COMMANDS), "help", "--version", "--help"]);
  const what = word.startsWith("-") ? "flag" : "command";
  return `"${word}" is not a ${what}${near === undefined ? "" : `: did you mean warren ${near}?`}`;
}

function print(text: string): number {
  console.log(text.trimEnd());
  return ExitCode.Ended;
}

if (import.meta.main) {
  takeConsole();
  await exit(await main(Deno.args));
}
