/** What a bench hands back, as one line of JSON, as a table, and as a section of RESULTS.md. */

import { ratio, summarize, type Summary } from "./measure.ts";

// Implementation
const RESULTS = new URL("RESULTS.md", import.meta.url);
const INTRODUCTION = `# Results

The last run of each bench, written by \`deno task bench NAME --write\`. Contenders alternate within a run; a
figure is the median of the rounds, with the lowest and the highest beside it. A ratio is the median of the
ratios of the rounds. Machines differ: trust ratios.
`;

/** Where a bench ran. */
export interface Machine {
  readonly cpu: string;
  readonly kernel: string;
  readonly deno: string;
}

/** What is measured, and how it is shown. */
export interface Metric {
  /** Its name in JSON, with the unit. */
  readonly key: string;
  /** The head of its column. */
  readonly title: string;
  /** Digits behind the point. */
  readonly digits: number;
}

/** One that is measured: its figures by metric, one a round. */
export interface Contender {
  readonly name: string;
  readonly figures: Record<string, number[]>;
}

/** A value that should keep within a limit. */
export interface Target {
  readonly name: string;
  readonly value: number;
  readonly limit: number;
  readonly met: boolean;
}

/** What a bench found. */
export interface Report {
  /** The bench's name. */
  readonly bench: string;
  /** What the figures mean: sentences below the table. */
  readonly notes: readonly string[];
  readonly metrics: readonly Metric[];
  readonly contenders: readonly Contender[];
  /** By `<metric> <contender>/<peer>`. */
  readonly ratios: Readonly<Record<string, number>>;
  readonly targets: readonly Target[];
  /** What did not take part: `peer: why`. */
  readonly missing: readonly string[];
}

/** A target that a value must not exceed. A value that is missing misses it. */
export function atMost(name: string, value: number, limit: number): Target {
  return { name: `${name} at most ${limit}`, value, limit, met: value <= limit };
}

/** A target that a value must reach. */
export function atLeast(name: string, value: number, limit: number): Target {
  return { name: `${name} at least ${limit}`, value, limit, met: value >= limit };
}

/** A target that is another value. */
export function equals(name: string, value: number, limit: number): Target {
  return { name: `${name} equals ${limit}`, value, limit, met: value === limit };
}

/** Of these metrics, by what their ratios are called, the ratios `<metric> <contender>/<peer>` of these pairs. */
export function ratiosOf(
  contenders: readonly Contender[],
  metrics: Readonly<Record<string, Metric>>,
  pairs: readonly (readonly [name: string, peer: string])[],
): Record<string, number> {
  const ratios: Record<string, number> = {};
  for (const [name, peer] of pairs) {
    const [one, other] = [name, peer].map((wanted) =>
      contenders.find(({ name }) => name === wanted)?.figures
    );
    for (const [called, { key }] of Object.entries(metrics)) {
      const [figures, others] = [one?.[key], other?.[key]];
      if (figures === undefined || others === undefined) continue;
      ratios[`${called} ${name}/${peer}`] = ratio(figures, others);
    }
  }
  return ratios;
}

/** A contender's last figures, of these metrics. */
export function latest({ figures }: Contender, metrics: readonly Metric[]): string {
  return metrics.filter(({ key }) => figures[key] !== undefined)
    .map(({ key, title, digits }) => `${title} ${figures[key]!.at(-1)!.toFixed(digits)}`).join("; ");
}

/** Says on standard error how far a bench is. */
export function say(line: string): void {
  console.error(`bench: ${line}`);
}

/** This machine. */
export function machine(): Machine {
  const info = Deno.readTextFileSync("/proc/cpuinfo");
  const model = info.match(/^model name\s*:\s*(.*)$/m)?.[1] ?? Deno.build.arch;
  return {
    cpu: `${model} x ${navigator.hardwareConcurrency}`,
    kernel: Deno.osRelease(),
    deno: Deno.version.deno,
  };
}

/** A report as one line: each metric is its median, with `<metric>_spread: [lowest, highest]` beside it. */
export function toJson(report: Report, at: Machine): string {
  const { bench, ratios, targets, missing } = report;
  const contenders = report.contenders.map(({ name, figures }) => {
    const entries = report.metrics.filter(({ key }) => figures[key] !== undefined).flatMap(({ key }) => {
      const { median, low, high } = summarize(figures[key]!);
      return [[key, rounded(median)], [`${key}_spread`, [rounded(low), rounded(high)]]] as const;
    });
    return { name, ...Object.fromEntries(entries) };
  });
  const roundedRatios = Object.fromEntries(
    Object.entries(ratios).map(([name, value]) => [name, rounded(value)]),
  );
  const roundedTargets = targets.map((target) => ({ ...target, value: rounded(target.value) }));
  return JSON.stringify({
    bench,
    machine: at,
    contenders,
    ratios: roundedRatios,
    targets: roundedTargets,
    missing,
  });
}

/** A report for people. */
export function toText(report: Report, at: Machine): string {
  const { bench, metrics, notes, contenders, ratios, targets, missing } = report;
  const figures = table([
    ["", ...metrics.map(({ title }) => title)],
    ...contenders.map((contender) => [
      contender.name,
      ...metrics.map(({ key, digits }) => cell(contender.figures[key], digits)),
    ]),
  ]);
  const ratioTable = table(Object.entries(ratios).map(([name, value]) => [name, value.toFixed(2)]));
  const targetTable = table(
    targets.map(({ name, value, met }) => [
      met ? "met" : "MISSED",
      name,
      Number.isNaN(value) ? "-" : value.toFixed(2),
    ]),
  );
  return [
    `${bench}: ${at.cpu}, Linux ${at.kernel}, Deno ${at.deno}`,
    figures,
    notes.join("\n"),
    ratioTable,
    targetTable,
    ...missing.map((line) => `missing: ${line}`),
  ].filter((part) => part !== "").join("\n\n");
}

/** Replaces the bench's section in RESULTS.md. */
export function writeResults(report: Report, at: Machine, quick: boolean): void {
  const heading = `## ${report.bench}`;
  const day = new Date().toISOString().slice(0, 10);
  const section = `${heading}

\`deno task bench ${report.bench}${quick ? " --quick" : ""} --write\`, ${day}

\`\`\`text
${toText(report, at)}
\`\`\`
`;
  const others = sections().filter((text) => !text.startsWith(`${heading}\n`));
  const all = [...others, section].sort();
  Deno.writeTextFileSync(RESULTS, [INTRODUCTION, ...all].join("\n"));
}

function sections(): string[] {
  let text = "";
  try {
    text = Deno.readTextFileSync(RESULTS);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return text.split(/^(?=## )/m).slice(1).map((part) => `${part.trimEnd()}\n`);
}

function cell(figures: readonly number[] | undefined, digits: number): string {
  if (figures === undefined || figures.length === 0) return "-";
  const { median, low, high }: Summary = summarize(figures);
  if (figures.length === 1) return median.toFixed(digits);
  return `${median.toFixed(digits)} (${low.toFixed(digits)}-${high.toFixed(digits)})`;
}

/** Rows in columns: words to the left, figures to the right. */
function table(rows: readonly string[][]): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((text, column) => widths[column] = Math.max(widths[column] ?? 0, text.length));
  }
  const isFigure = (column: number) => rows.slice(-1).every((row) => /^[-\d]/.test(row[column] ?? ""));
  const align = (text: string, column: number) =>
    isFigure(column) ? text.padStart(widths[column]!) : text.padEnd(widths[column]!);
  return rows.map((row) => row.map(align).join("  ").trimEnd()).join("\n");
}

/** Counts stay as they are. */
function rounded(value: number): number {
  return Number.isInteger(value) ? value : Number(value.toPrecision(4));
}
