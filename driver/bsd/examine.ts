/** What `warren doctor` looks at on every BSD. */

import type { Check } from "../check.ts";
import type { Bsd } from "./bsd.ts";

/** Looks whether this process may make interfaces. */
export function checkRoot({ functions, system, asRoot }: Bsd): Check[] {
  const what = "privileges";
  return [
    functions.geteuid() === 0
      ? { what, state: "ok", says: "root" }
      : { what, state: "fail", says: `not root: ${system} lets only root make devices`, remedy: asRoot },
  ];
}
