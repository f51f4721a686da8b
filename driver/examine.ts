/** Checks whether this system can open a device, for `warren doctor`. */

import type { Check } from "./check.ts";
import { WITHOUT_DRIVER } from "./error.ts";

/** Runs all checks; `repair` also removes what crashed processes have left behind (Linux). */
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
