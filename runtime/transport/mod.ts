/** The `far` option of a tunnel: an end, an opener or a URL. */

import type { TunnelEnd } from "../../lib/core/mod.ts";
import { gotValue } from "../../lib/core/options.ts";
import { type EndOpener, type FarEndContext, WITHOUT_TUNNEL } from "./end_opener.ts";
import { parseFarUrl } from "./far_url.ts";

/**
 * Opens the far end of a tunnel: returns an end, and calls an opener.
 *
 * @param option Name of the option that holds it, for errors.
 * @throws {TypeError} for any other value, also from an opener. Errors of the opener are passed on.
 */
export async function openFarEnd(
  far: TunnelEnd | EndOpener | undefined,
  context: FarEndContext = WITHOUT_TUNNEL,
  option = "far",
): Promise<TunnelEnd | undefined> {
  const end = typeof far === "function" ? await far(context) : far;
  if (far === undefined || typeof (end as Partial<TunnelEnd> | null | undefined)?.attach === "function") {
    return end;
  }
  throw new TypeError(
    `Cannot open a tunnel: ${option} must be a URL, an end or an opener of one, ${gotValue(end)}`,
  );
}

/**
 * Returns the opener for a URL, and any other far end unchanged.
 *
 * @throws {SyntaxError} when a URL does not parse.
 */
export function openerOf<Far>(far: Far | string): Far | EndOpener {
  return typeof far === "string" ? parseFarUrl(far) : far;
}
