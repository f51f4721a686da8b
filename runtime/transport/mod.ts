/** Opening of far ends. */

import type { TunnelEnd } from "../../lib/core/mod.ts";
import { gotValue } from "../../lib/core/options.ts";
import { type EndOpener, type FarEndContext, WITHOUT_TUNNEL } from "./end_opener.ts";

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
