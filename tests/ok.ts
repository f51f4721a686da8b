/** `deno task ok`: the one gate. Every step runs, whatever became of those before it. */

import config from "../deno.json" with { type: "json" };

/** A part of the gate: a command line of deno. */
interface Step {
  readonly name: string;
  readonly about: string;
  readonly args: readonly string[];
}

const ROOT = new URL("../", import.meta.url);
const frozen = Deno.env.get("CI") === "true" ? ["--frozen"] : [];
const exported = Object.values(config.exports);

/** The folders whose doc comments hold examples. */
const DOCUMENTED = ["lib", "driver", "runtime"];

/** The lines where examples start that can run, such as `lib/wire/ip.ts#12`: all but those marked `no-eval`. */
async function* examples(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(new URL(`${folder}/`, ROOT))) {
    const path = `${folder}/${name}`;
    if (isDirectory) yield* examples(path);
    if (!name.endsWith(".ts")) continue;
    const lines = (await Deno.readTextFile(new URL(path, ROOT))).split("\n");
    yield* lines.flatMap((line, i) => /^\s*\* ```ts$/.test(line) ? [`${path}#${i + 1}`] : []);
  }
}

/** `deno test --doc` runs examples marked `no-eval`, too; with this filter it only checks their types. */
async function exampleFilter(): Promise<string> {
  const found = (await Promise.all(DOCUMENTED.map((folder) => Array.fromAsync(examples(folder))))).flat();
  return `--filter=/(${found.map((example) => example.replaceAll(".", "\\.")).join("|")})-/`;
}

const STEPS: readonly Step[] = [
  { name: "format", about: "deno fmt", args: ["fmt", "--check"] },
  { name: "lint", about: "deno lint, with the layers of tests/gate/layers.ts", args: ["lint"] },
  { name: "types", about: "every file, with scripts and tests", args: ["check", ...frozen, "."] },
  { name: "tests", about: "deno task test", args: ["run", "--allow-all", ...frozen, "tests/run.ts"] },
  { name: "docs", about: "every export is documented", args: ["doc", "--lint", "--quiet", ...exported] },
  {
    name: "examples",
    about: "the examples in doc comments run, with nothing but the network",
    args: ["test", "--doc", "--no-prompt", "--allow-net", await exampleFilter(), ...frozen, ...DOCUMENTED],
  },
  {
    name: "publish",
    about: "a dry run for JSR",
    args: ["publish", "--dry-run", "--allow-dirty", ...frozen],
  },
];

const HELP = `Usage: deno task ok [steps...]

Without steps, all of them:

${STEPS.map(({ name, about }) => `  ${name.padEnd(10)} ${about}`).join("\n")}

Exit code: 0 when all are ok, 1 when one is not, 2 for a wrong command line.
`;

/** What became of a step. */
interface Result {
  readonly name: string;
  readonly ok: boolean;
  readonly milliseconds: number;
}

async function run({ name, about, args }: Step): Promise<Result> {
  console.log(`\n== ${name}: ${about}`);
  const start = performance.now();
  await using child = new Deno.Command(Deno.execPath(), { args: [...args], cwd: ROOT, stdin: "null" })
    .spawn();
  const { success } = await child.status;
  const result = { name, ok: success, milliseconds: performance.now() - start };
  console.log(line(result));
  return result;
}

function line({ name, ok, milliseconds }: Result): string {
  return `${ok ? "ok    " : "FAILED"}  ${name.padEnd(10)} ${(milliseconds / 1000).toFixed(1).padStart(6)} s`;
}

async function main(names: readonly string[]): Promise<number> {
  if (names.includes("--help") || names.includes("-h")) {
    console.log(HELP);
    return 0;
  }
  const unknown = names.find((name) => !STEPS.some((step) => step.name === name));
  if (unknown !== undefined) {
    console.error(`"${unknown}" is no step of the gate\nTry: deno task ok --help`);
    return 2;
  }
  const results: Result[] = [];
  for (const step of STEPS) {
    if (names.length === 0 || names.includes(step.name)) results.push(await run(step));
  }
  console.log(`\n${results.map(line).join("\n")}`);
  return results.every(({ ok }) => ok) ? 0 : 1;
}

if (import.meta.main) Deno.exitCode = await main(Deno.args);
