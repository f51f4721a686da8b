/** The check of `warren doctor` that macOS and FreeBSD share. */

import type { Check } from "../check.ts";
import type { Bsd } from "./bsd.ts";

/** Checks whether the process may create devices. */
export function checkRoot({ functions, system, asRoot }: Bsd): Check[] {
  const name = "privileges";
  return [
    functions.geteuid() === 0
      ? { name, state: "ok", text: "root" }
      : { name, state: "fail", text: `not root: ${system} lets only root create devices`, remedy: asRoot },
  ];
}
