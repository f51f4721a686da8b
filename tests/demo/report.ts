/** What the demo saw, as two tables. */

import type { Part } from "./measure.ts";

/** What the demo saw. */
export interface Findings {
  /** What was opened. */
  readonly about: string;
  /** Whose processor time the parts have. */
  readonly cpuOf: string;
  /** From the start of the script to its first answer (milliseconds). */
  readonly start: number;
  readonly parts: readonly Part[];
  /** What the script counted itself, in its own words. */
  readonly summary?: string;
}

/** Rows under their heads; the first column to the left, numbers to the right. */
function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = (row: readonly string[]) =>
    row.map((cell, i) => i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)).join("  ");
  return rows.map((row) => `  ${line(row)}`).join("\n");
}

function count(value: number): string {
  return Math.round(value).toLocaleString("en");
}

function microseconds(milliseconds: number): string {
  return Number.isNaN(milliseconds) ? "-" : count(milliseconds * 1000);
}

/** The tables. */
export function format({ about, cpuOf, start, parts, summary }: Findings): string {
  const trips = parts.flatMap(({ name, sent, echo }) =>
    echo === undefined ? [] : [[
      name,
      count(sent),
      count(sent - echo.lost),
      ...[echo.min, echo.median, echo.p99, echo.max].map(microseconds),
    ]]
  );
  const traffic = parts.map(({ name, sent, counts, elapsed, cpu }) => [
    name,
    count(sent),
    count(counts.fromHere),
    count(counts.toHere),
    count(counts.queueDrops),
    count(counts.scriptDrops),
    count((counts.fromHere + counts.toHere) / elapsed * 1000),
    `${count(cpu / elapsed * 100)} %`,
  ]);
  return `${about}

${table([["round trips (µs)", "sent", "answered", "min", "median", "p99", "max"], ...trips])}

${
    table([
      ["packets", "sent", "to script", "back", "queue full", "not wanted", "packets/s", cpuOf],
      ...traffic,
    ])
  }

  First answer ${count(start)} ms after the script's start. "queue full": dropped before the script, which was
  busy. "not wanted": dropped by the script, which answers echo requests alone. "packets/s": both ways.${
    summary ? `\n\n  The script's own count:\n  ${summary}` : ""
  }`;
}

/** What should not be; nothing when the demo went well. */
export function problems(parts: readonly Part[]): string[] {
  return parts.flatMap(({ name, sent, echo, counts }) => {
    if (echo !== undefined && echo.lost > 0) return [`${name}: ${echo.lost} of ${sent} got no answer`];
    return counts.fromHere === 0 ? [`${name}: no packet came to the script`] : [];
  });
}
