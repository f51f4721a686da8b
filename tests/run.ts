/**
 * `deno task test`: every test, each group with the permissions that it may have, and what was skipped and why.
 *
 *     tests/**_test.ts ──▶ groups ──▶ deno test, one run a group ──▶ outcome ──▶ N passed, N failed, N skipped
 *
 * @module
 */

import { parseArgs } from "node:util";

/** Test files that run together. */
export interface Group {
  readonly name: string;
  /** Folders and files, from tests/ on. The longest path that leads to a file says which group it is in. */
  readonly paths: readonly string[];
  /** What its tests may do. */
  readonly permissions: readonly string[];
}

const GROUPS: readonly Group[] = [
  {
    name: "pure",
    paths: ["lib", "driver", "runtime", "conformance", "gate", "runtime/transport/mod_test.ts"],
    permissions: [],
  },
  { name: "golden", paths: ["golden"], permissions: ["--allow-read=tests/golden"] },
  {
    name: "network",
    paths: [
      "runtime/transport",
      "runtime/dns",
      "conformance/transport_test.ts",
      "conformance/posix_udp_test.ts",
      "driver/crypto",
      "driver/freebsd",
      "driver/posix/local_control_test.ts",
    ],
    permissions: ["--allow-ffi", "--allow-net"],
  },
  {
    name: "machine",
    paths: [
      "runtime/cli",
      "runtime/script/failure_test.ts",
      "runtime/script/flags_test.ts",
      "runtime/script/profile_test.ts",
      "runtime/script/progress_test.ts",
      "scripts",
      "system",
      "kit",
      "bench",
      "gate/cycles_test.ts",
    ],
    permissions: ["--allow-all"],
  },
];

const HELP = `Usage: deno task test [paths...] [--filter TEXT]

  paths            only test files here: tests/lib, tests/system/ping_test.ts
  --filter TEXT    only tests with this in their names; /REGEXP/ works, too
  -h, --help       this text

Needs root and the programs of .ci/run for everything; says what it skips without.
Exit code: 0 when all passed, 1 when one failed or none ran, 2 for a wrong command line.
`;

// Implementation
const ROOT = new URL("../", import.meta.url);
/** After this, a group hangs (milliseconds). */
const GROUP_LIMIT = 20 * 60_000;
// deno-lint-ignore no-control-regex
const COLOURS = /\x1b\[[0-9;]*m/g;

/** What became of tests. */
export interface Outcome {
  passed: number;
  failed: number;
  skipped: number;
  /** The names of tests that failed. */
  readonly failures: string[];
  /** `<name>: <reason>` of each test that was skipped. */
  readonly skips: string[];
}

/** Test files below a folder, as paths from the root. */
async function* testFiles(folder: string): AsyncGenerator<string> {
  const entries = await Array.fromAsync(Deno.readDir(new URL(folder, ROOT)));
  for (const { name, isDirectory } of entries.sort((a, b) => a.name < b.name ? -1 : 1)) {
    if (isDirectory) yield* testFiles(`${folder}${name}/`);
    else if (name.endsWith("_test.ts")) yield folder + name;
  }
}

function isIn(file: string, path: string): boolean {
  return file === path || file.startsWith(path.endsWith("/") ? path : `${path}/`);
}

/**
 * The files of each group.
 *
 * @throws {Error} for a file in no group.
 */
export function arrange(files: readonly string[]): Map<Group, string[]> {
  const arranged = new Map(GROUPS.map((group): [Group, string[]] => [group, []]));
  const places = GROUPS.flatMap((group) => group.paths.map((path) => ({ group, path: `tests/${path}` })))
    .sort((a, b) => b.path.length - a.path.length);
  for (const file of files) {
    const place = places.find(({ path }) => isIn(file, path));
    if (place === undefined) throw new Error(`Cannot run ${file}: no group in tests/run.ts names its folder`);
    arranged.get(place.group)!.push(file);
  }
  return arranged;
}

/** The output of `deno test`, passed on to the terminal and read on the way. */
export class Report {
  /** Whether the line with the counts came. */
  complete = false;
  readonly #outcome: Outcome;
  readonly #reasons: string[] = [];
  #inOutput = false;

  readonly #pass: (chunk: Uint8Array) => void;

  /** Adds to the outcome, and passes on what it reads. */
  constructor(outcome: Outcome, pass: (chunk: Uint8Array) => void) {
    this.#outcome = outcome;
    this.#pass = pass;
  }

  /** Reads until the output ends. */
  async read(stdout: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of stdout) {
      this.#pass(chunk);
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop()!;
      for (const line of lines) this.#line(line.replace(COLOURS, ""));
    }
  }

  #line(line: string): void {
    const { skips, failures } = this.#outcome;
    if (line.startsWith("skipped: ")) this.#reasons.push(line.slice("skipped: ".length));
    if (/^-+ (post-test |pre-test )?output -+$/.test(line)) this.#inOutput = true;
    if (/^-+ (post-test |pre-test )?output end -+$/.test(line)) this.#inOutput = false;
    if (this.#inOutput) return;

    const ignored = /^(\S.*) \.\.\. ignored \(/.exec(line)?.[1];
    if (ignored !== undefined) {
      const reason = this.#reasons.find((reason) => reason.startsWith(`${ignored}: `));
      skips.push(reason ?? `${ignored}: it does not say why`);
    }
    // It found out on the way that it could not do what it is for.
    const ended = /^(\S.*) \.\.\. ok \(/.exec(line)?.[1];
    const late = ended === undefined
      ? undefined
      : this.#reasons.find((reason) => reason.startsWith(`${ended}: `));
    if (late !== undefined) {
      skips.push(late);
      this.#outcome.passed--;
      this.#outcome.skipped++;
    }
    const failed = /^(\S.*) \.\.\. FAILED \(/.exec(line) ?? /^Uncaught error from (.+) FAILED$/.exec(line);
    if (failed !== null) failures.push(failed[1]!);

    if (!/^(ok|FAILED) \| \d+ passed/.test(line)) return;
    const count = (word: string) => Number(new RegExp(`\\| (\\d+) ${word}`).exec(line)?.[1] ?? 0);
    this.#outcome.passed += count("passed");
    this.#outcome.failed += count("failed");
    this.#outcome.skipped += count("ignored");
    this.complete = true;
  }
}

function writeAll(chunk: Uint8Array): void {
  for (let written = 0; written < chunk.length;) written += Deno.stdout.writeSync(chunk.subarray(written));
}

/** Runs a group and adds to the outcome. */
async function run(
  group: Group,
  files: readonly string[],
  filter: string | undefined,
  outcome: Outcome,
): Promise<void> {
  const { name, permissions } = group;
  const flags = ["--no-prompt", ...permissions];
  if (filter !== undefined) flags.push(`--filter=${filter}`);
  if (Deno.env.get("CI") === "true") flags.push("--frozen");
  console.log(`\n== ${name}: ${files.length} files, ${permissions.join(" ") || "no permissions"}`);
  const before = outcome.failed;
  const signal = AbortSignal.timeout(GROUP_LIMIT);
  await using child = new Deno.Command(Deno.execPath(), {
    args: ["test", ...flags, ...files],
    cwd: ROOT,
    signal,
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const report = new Report(outcome, writeAll);
  await report.read(child.stdout);
  const { code } = await child.status;
  // It ended before it counted: a module does not type-check, it was killed, it hung.
  if (code !== 0 && outcome.failed === before || !report.complete) {
    outcome.failed++;
    outcome.failures.push(
      `the group ${name}: ${signal.aborted ? "it hung" : `deno test ended with ${code}`}`,
    );
  }
}

/** The end of the output; the last line is the one that machines read. */
function summarize({ passed, failed, skipped, failures, skips }: Outcome): void {
  console.log();
  for (const skip of skips) console.log(`skipped: ${skip}`);
  for (const name of failures) console.log(`failed: ${name}`);
  if (passed + failed === 0) console.log("no test ran");
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
}

/** The command line makes no sense. */
class UsageError extends Error {}

function readFlags(args: string[]): { paths: string[]; filter: string | undefined; help: boolean } {
  try {
    const options = { filter: { type: "string" }, help: { type: "boolean", short: "h" } } as const;
    const { values: { filter, help = false }, positionals } = parseArgs({
      args,
      options,
      allowPositionals: true,
    });
    return { paths: positionals.map((path) => path.replace(/^\.\//, "")), filter, help };
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error });
  }
}

async function main(args: string[]): Promise<number> {
  const { paths, filter, help } = readFlags(args);
  if (help) {
    console.log(HELP);
    return 0;
  }
  const all = await Array.fromAsync(testFiles("tests/"));
  const lost = paths.find((path) => !all.some((file) => isIn(file, path)));
  if (lost !== undefined) {
    throw new UsageError(`Cannot run "${lost}": it is no test file and has none below it`);
  }
  const files = all.filter((file) => paths.length === 0 || paths.some((path) => isIn(file, path)));
  const outcome: Outcome = { passed: 0, failed: 0, skipped: 0, failures: [], skips: [] };
  for (const [group, its] of arrange(files)) {
    if (its.length > 0) await run(group, its, filter, outcome);
  }
  summarize(outcome);
  return outcome.failed === 0 && outcome.passed > 0 ? 0 : 1;
}

if (import.meta.main) {
  try {
    Deno.exitCode = await main(Deno.args);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(`${error.message}\nTry: deno task test --help`);
    Deno.exitCode = 2;
  }
}
