/** Checks of `warren doctor` on macOS and FreeBSD. */

import type { Check } from "../check.ts";
import type { Bsd } from "./bsd.ts";

/** Checks the right to create interfaces. */
export function checkRoot({ functions, system, asRoot }: Bsd): Check[] {
  const what = "privileges";
  return [
    functions.geteuid() === 0
      ? { what, state: "ok", says: "root" }
      : { what, state: "fail", says: `not root: ${system} lets only root create devices`, remedy: asRoot },
  ];
}
