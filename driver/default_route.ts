/** Splits a default route into two halves. */

import { Prefix } from "../lib/wire/address.ts";

/** Returns the halves of 0.0.0.0/0 or ::/0: more specific than the existing default route, they need not replace it. */
export function halvesOf({ address: { family, bytes } }: Prefix): Prefix[] {
  return [0, 0x80].map((first) => {
    const half = new Uint8Array(bytes.length);
    half[0] = first;
    return new Prefix({ family, bytes: half }, 1);
  });
}
