/** A far end made of several. */

import type { TunnelEnd } from "../../lib/core/mod.ts";
import { Switchboard } from "../../lib/end/switchboard.ts";
import type { EndOpener } from "./end_opener.ts";
import { deviceOptionsOf } from "./device.ts";
import { openerOf, openFarEnd } from "./mod.ts";

/**
 * A far end made of several, such as devices, transports and URLs, which are opened with their tunnel. A stage, such as
 * `route()`, says by `packet.to` which one a packet goes to; see {@linkcode Switchboard}.
 */
export function switchboard(ends: readonly (TunnelEnd | EndOpener | string)[]): EndOpener {
  return async (context) => {
    await using undo = new AsyncDisposableStack();
    const opened: TunnelEnd[] = [];
    // Devices last: the routes of one may lead other ends' look-ups of names into it.
    for (const [index, far] of [...ends.entries()].sort(([, a], [, b]) => +isDevice(a) - +isDevice(b))) {
      const end = (await openFarEnd(far, context))!;
      undo.defer(async () => {
        end.close();
        await end.closed;
      });
      opened[index] = end;
    }
    const made = new Switchboard(opened);
    undo.move();
    return made;
  };
}

function isDevice(far: TunnelEnd | EndOpener | string): boolean {
  return deviceOptionsOf(openerOf(far)) !== undefined;
}
