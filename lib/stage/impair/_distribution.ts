/** How delays are spread around their mean: tables from which a random place is taken. */

// Specification: tables of 4096 places within 4 deviations; netem/normal.c, pareto.c and paretonormal.c of iproute2
const PLACES = 4096;
const FURTHEST = 4;
/** The exponent of Pareto's distribution: with 3, the mean is 1.5 and the variance 0.75. */
const PARETO = 3;
const PARETO_MEAN = 1.5;
const PARETO_SCALE = 4 / 3;
const PARETO_SHARE = 0.75;

// Implementation
const STEPS = 1 << 17;

/** How delays are spread; `normal`, `pareto` and `paretonormal` as in tc-netem(8). */
export type DelayDistribution = "uniform" | "normal" | "pareto" | "paretonormal";

const tables = new Map<DelayDistribution, Float64Array>();

/**
 * What to multiply the jitter by, in rising order, each as likely as the others.
 *
 * @throws {TypeError} when there is no such distribution.
 */
export function delayTable(distribution: DelayDistribution): Float64Array {
  const table = tables.get(distribution) ?? makeTable(distribution);
  tables.set(distribution, table);
  return table;
}

function makeTable(distribution: DelayDistribution): Float64Array {
  switch (distribution) {
    case "uniform":
      return Float64Array.from({ length: PLACES }, (_, i) => 2 * middle(i) - 1);
    case "normal":
      return normal();
    case "pareto":
      return Float64Array.from({ length: PLACES }, (_, i) => pareto(middle(i)));
    case "paretonormal":
      return normal().map((value, i) => (1 - PARETO_SHARE) * value + PARETO_SHARE * pareto(middle(i)));
  }
  throw new TypeError(`Cannot spread delays by "${distribution}": uniform, normal, pareto, paretonormal can`);
}

function middle(place: number): number {
  return (place + 0.5) / PLACES;
}

function pareto(probability: number): number {
  return Math.min(FURTHEST, ((1 - probability) ** (-1 / PARETO) - PARETO_MEAN) * PARETO_SCALE);
}

/** The inverse of the normal distribution, by adding up its density. */
function normal(): Float64Array {
  const table = new Float64Array(PLACES);
  const step = 2 * FURTHEST / STEPS;
  let sum = 0;
  let place = 0;
  for (let i = 0; i < STEPS && place < PLACES; i++) {
    const x = -FURTHEST + (i + 0.5) * step;
    sum += Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI) * step;
    while (place < PLACES && sum >= middle(place)) table[place++] = x;
  }
  return table.fill(FURTHEST, place);
}
