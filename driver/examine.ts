/** What `warren doctor` asks of a system: whether a device can be opened on it, and what to do where it cannot. */

import { said, WITHOUT_DRIVER } from "./error.ts";

/** What was found. */
export interface Check {
  /** What was looked at. */
  readonly what: string;
  /** `fail`: Warren does not work so. `warn`: something does not, or may not. */
  readonly state: "ok" | "warn" | "fail";
  /** What is so. */
  readonly says: string;
  /** What to do about it. */
  readonly remedy?: string;
}

/** Makes a check; what goes wrong in it is told as its result. */
export async function check(what: string, look: () => Check[] | Promise<Check[]>): Promise<Check[]> {
  try {
    return await look();
  } catch (error) {
    return [{ what, state: "warn", says: `it cannot be told: ${said(error)}` }];
  }
}

/** Opens a system's library: whether it is here, with every function that Warren calls. */
export function checkLibrary(what: string, open: () => unknown): Check[] {
  try {
    open();
    return [{ what, state: "ok", says: "it loads, with every function that Warren calls" }];
  } catch (error) {
    return [{ what, state: "fail", says: said(error) }];
  }
}

/** Makes every check of this system; with `repair`, what a crashed process left behind is put back. */
export async function examineSystem(repair: boolean): Promise<Check[]> {
  const { os, arch } = Deno.build;
  const system: Check = { what: "system", state: "ok", says: `${os} ${arch}` };
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
        what: "system",
        state: "fail",
        says: `${os} ${arch}: Warren has no driver for it yet`,
        remedy: WITHOUT_DRIVER,
      }];
  }
}
