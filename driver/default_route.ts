/** A default route in halves. */

import { Prefix } from "../lib/wire/address.ts";

/** Halves of a default prefix: more specific than the existing default route, which stays in place. */
export function halvesOf({ address: { family, bytes } }: Prefix): Prefix[] {
  return [0, 0x80].map((first) => {
    const half = new Uint8Array(bytes.length);
    half[0] = first;
    return new Prefix({ family, bytes: half }, 1);
  });
}
