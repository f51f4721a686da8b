/** Far ends, and what opens them. */

import type { TunnelEnd } from "../../lib/core/mod.ts";
import { type EndOpener, type FarEndContext, WITHOUT_TUNNEL } from "./end_opener.ts";
import { parseFarUrl } from "./far_url.ts";

/**
 * Opens a tunnel's `far` option: an end is open already, an opener is called, a URL is read by
 * {@linkcode parseFarUrl}.
 *
 * @throws {SyntaxError} when it is text that does not parse; what its opener throws.
 */
export async function openFarEnd(
  far: TunnelEnd | EndOpener | string | undefined,
  context: FarEndContext = WITHOUT_TUNNEL,
): Promise<TunnelEnd | undefined> {
  const opener = openerOf(far);
  const end = typeof opener === "function" ? await opener(context) : opener;
  if (far === undefined || typeof (end as Partial<TunnelEnd> | null | undefined)?.attach === "function") {
    return end;
  }
  throw new TypeError(
    `Cannot use ${
      Deno.inspect(end, { depth: 0 })
    } as a far end: it is neither a URL, nor an end, nor what opens one`,
  );
}

/** The opener of a far end that is given by its URL; any other far end as it is. */
export function openerOf<Far>(far: Far | string): Far | EndOpener {
  return typeof far === "string" ? parseFarUrl(far) : far;
}
