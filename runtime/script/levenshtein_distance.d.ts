/** What Warren uses of `@std/text/levenshtein-distance`, whose npm form has no types. */

/** Letters to insert, remove or replace to make one word of another. */
export function levenshteinDistance(from: string, to: string): number;
