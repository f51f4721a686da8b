/** Distributions of delays around their mean, as tables whose index is a random number. */

// Specification: tables of 4096 entries within 4 deviations; netem/normal.c, pareto.c and paretonormal.c of iproute2
const ENTRIES = 4096;
const MAX_DEVIATION = 4;
/** Exponent of Pareto's distribution, which has a mean of 1.5 and a variance of 0.75. */
const PARETO = 3;
const PARETO_MEAN = 1.5;
const PARETO_SCALE = 4 / 3;
const PARETO_SHARE = 0.75;

// Implementation
const STEPS = 1 << 17;

/** Distribution of delays; `normal`, `pareto` and `paretonormal` as in tc-netem(8). */
export type DelayDistribution = "uniform" | "normal" | "pareto" | "paretonormal";

const tables = new Map<DelayDistribution, Float64Array>();

/** Returns factors for the jitter, equally likely, in ascending order. */
export function delayTable(distribution: DelayDistribution): Float64Array {
  const table = tables.get(distribution) ?? makeTable(distribution);
  tables.set(distribution, table);
  return table;
}

function makeTable(distribution: DelayDistribution): Float64Array {
  switch (distribution) {
    case "uniform":
      return Float64Array.from({ length: ENTRIES }, (_, i) => 2 * middle(i) - 1);
    case "normal":
      return normal();
    case "pareto":
      return Float64Array.from({ length: ENTRIES }, (_, i) => pareto(middle(i)));
    case "paretonormal":
      return normal().map((value, i) => (1 - PARETO_SHARE) * value + PARETO_SHARE * pareto(middle(i)));
  }
}

function middle(entry: number): number {
  return (entry + 0.5) / ENTRIES;
}

function pareto(probability: number): number {
  return Math.min(MAX_DEVIATION, ((1 - probability) ** (-1 / PARETO) - PARETO_MEAN) * PARETO_SCALE);
}

/** Returns the inverse of the normal distribution, from a numerical integration of its density. */
function normal(): Float64Array {
  const table = new Float64Array(ENTRIES);
  const step = 2 * MAX_DEVIATION / STEPS;
  let total = 0;
  let entry = 0;
  for (let i = 0; i < STEPS && entry < ENTRIES; i++) {
    const x = -MAX_DEVIATION + (i + 0.5) * step;
    total += Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI) * step;
    while (entry < ENTRIES && total >= middle(entry)) table[entry++] = x;
  }
  return table.fill(MAX_DEVIATION, entry);
}
