/**
 * The `warren` command: `warren run`, `warren new`, `warren doctor`, `warren driver`.
 *
 * @module
 */

import { exit, takeConsole } from "../script/output.ts";
import { ExitCode, nearest, report, UsageError } from "../script/failure.ts";
import { VERSION } from "./version.ts";

/** A subcommand: it prints, and returns the exit code; what it throws is printed. */
type Command = (args: readonly string[]) => number | Promise<number>;

/** Each is loaded when it is asked for. */
const COMMANDS: Readonly<Record<string, Command>> = {
  run: async (args) => (await import("./run.ts")).run(args),
  new: async (args) => (await import("./new.ts")).create(args),
  doctor: async (args) => (await import("./doctor.ts")).doctor(args),
  driver: async (args) => (await import("./driver.ts")).driver(args),
};

const USAGE = `Usage: warren COMMAND [flags]

  run SCRIPT [flags]   run a script with the permissions that it asks for; its flags: warren run SCRIPT --help
  new NAME             write a script, with the deno.json that it needs
  doctor [--repair]    check this machine; put back what a crash left behind
  driver install       get Wintun, which Windows needs
  help [COMMAND]       this text, or a command's
  --version            Warren's version and Deno's

Exit code: 0 when it went well, 1 when it failed, 2 for a wrong command line.
`;

/** Runs the command with these arguments, and returns its exit code. */
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
  if (word === undefined) return `it needs a command: ${Object.keys(COMMANDS).join(", ")} or help`;
  const near = /\.m?[jt]s$/.test(word)
    ? `run ${word}`
    : nearest(word, [...Object.keys(COMMANDS), "help", "--version", "--help"]);
  const what = word.startsWith("-") ? "flag" : "command";
  return `"${word}" is no ${what}${near === undefined ? "" : `: did you mean warren ${near}?`}`;
}

function print(text: string): number {
  console.log(text.trimEnd());
  return ExitCode.Ended;
}

if (import.meta.main) {
  takeConsole();
  await exit(await main(Deno.args));
}
