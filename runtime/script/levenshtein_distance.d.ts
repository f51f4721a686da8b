/** Types of `@std/text/levenshtein-distance`, whose npm package has none. */

/** Number of letters to insert, remove or replace to turn one word into another. */
export function levenshteinDistance(from: string, to: string): number;
