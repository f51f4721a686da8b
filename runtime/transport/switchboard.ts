/** A far end that combines several far ends. */

import type { TunnelEnd } from "../../lib/core/mod.ts";
import { Switchboard } from "../../lib/end/switchboard.ts";
import type { EndOpener } from "./end_opener.ts";
import { deviceOptionsOf } from "./device.ts";
import { openerOf } from "./far_url.ts";
import { openFarEnd } from "./mod.ts";

/**
 * Far end that combines several devices, transports or URLs, which open with the tunnel. A stage such as `route()` sets
 * `packet.to` to the number of the end that a packet goes to; see {@linkcode Switchboard}.
 *
 * If an end fails to open, the opener closes the others and rejects with the error of that end.
 *
 * @throws {SyntaxError} when a URL does not parse.
 *
 * @example Two peers, and a route to each
 * ```ts
 * import { script, switchboard } from "@warren/tunnel";
 * import { route } from "@warren/tunnel/route";
 *
 * const far = switchboard(["udp://192.0.2.1:4500", "ws://192.0.2.2:80/"]);
 * const stages = [route([{ to: { "10.1.0.0/16": 1, "10.2.0.0/16": 2 } }])];
 * export default script(import.meta, { address: "10.9.0.1/24", far, stages }, (tunnel) => tunnel.run());
 * ```
 */
export function switchboard(ends: readonly (TunnelEnd | EndOpener | string)[]): EndOpener {
  const openers = ends.map(openerOf);
  const isDevice = (far: TunnelEnd | EndOpener) => deviceOptionsOf(far) !== undefined;
  return async (context) => {
    await using undo = new AsyncDisposableStack();
    const opened: TunnelEnd[] = [];
    // Devices open last, because their routes could affect the name look-ups of other ends.
    for (const [index, far] of [...openers.entries()].sort(([, a], [, b]) => +isDevice(a) - +isDevice(b))) {
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
