/** Checks of `warren doctor` on Windows. */

import { errorMessage } from "../error.ts";
import { type Check, check, checkLibrary } from "../check.ts";
import { iphlpapi } from "./iphlpapi.ts";
import { ADMINISTRATOR_REMEDY, isAdministrator } from "./shell32.ts";
import { findWintun } from "./wintun.ts";

/** Runs the checks. A crash leaves nothing to repair: see `setup.ts`. */
export async function examine(): Promise<Check[]> {
  return [
    ...await check("wintun.dll", checkWintun),
    ...await check("iphlpapi.dll", checkIphlpapi),
    ...await check("privileges", checkAdministrator),
  ];
}

/** Checks the DLL without loading it, which would remove adapters of other products. */
function checkWintun(): Check[] {
  const what = "wintun.dll";
  try {
    const { path, official, file } = findWintun();
    file[Symbol.dispose]();
    return [
      official ? { what, state: "ok", says: `${path} is an official build for this machine` } : {
        what,
        state: "warn",
        says: `${path} is not an official build; WARREN_WINTUN and its SHA-256 allow it`,
      },
    ];
  } catch (error) {
    return [{ what, state: "fail", says: errorMessage(error) }];
  }
}

function checkIphlpapi(): Check[] {
  const what = "iphlpapi.dll";
  const checks = checkLibrary(what, iphlpapi);
  if (checks.some(({ state }) => state === "fail") || iphlpapi().SetInterfaceDnsSettings !== null) {
    return checks;
  }
  const says = "it cannot set DNS servers: this needs Windows 10 version 2004 or later";
  return [{ what, state: "warn", says }];
}

function checkAdministrator(): Check[] {
  const what = "privileges";
  return [
    isAdministrator()
      ? { what, state: "ok", says: "administrator" }
      : { what, state: "fail", says: "not an administrator", remedy: ADMINISTRATOR_REMEDY },
  ];
}
