/** Opens the bypass of a tunnel on this system. */

import { Bypass, coveringRoutes } from "./bypass.ts";
import type { CheckedDeviceOptions } from "./options.ts";

/**
 * Opens the bypass of a tunnel whose device is about to get these options: host routes for its far end's own packets.
 * `undefined` on systems other than Linux.
 */
export async function openBypass(options: CheckedDeviceOptions): Promise<Bypass | undefined> {
  if (Deno.build.os !== "linux") return undefined;
  const { LinuxHostRoutes } = await import("./linux/host_routes.ts");
  const { MAIN_TABLE } = await import("./linux/netlink/routes.ts");
  return new Bypass(new LinuxHostRoutes(options.name), coveringRoutes(options, MAIN_TABLE));
}
