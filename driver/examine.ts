/** System checks of `warren doctor`: can a device be opened here, and if not, what to do. */

import type { Check } from "./check.ts";
import { WITHOUT_DRIVER } from "./error.ts";

/** Runs every check of this system; with `repair`, cleans up after a crashed process (Linux). */
export async function examineSystem(repair: boolean): Promise<Check[]> {
  const { os, arch } = Deno.build;
  const system: Check = { name: "system", state: "ok", text: `${os} ${arch}` };
  switch (os) {
    case "linux":
      return [system, ...await (await import("./linux/examine.ts")).examine(repair)];
    case "darwin":
      return [system, ...await (await import("./macos/examine.ts")).examine()];
    case "freebsd":
      return [system, ...await (await import("./freebsd/examine.ts")).examine()];
    case "windows":
      return [system, ...await (await import("./windows/examine.ts")).examine()];
    default:
      return [{
        name: "system",
        state: "fail",
        text: `${os} ${arch}: Warren has no driver for it yet`,
        remedy: WITHOUT_DRIVER,
      }];
  }
}
