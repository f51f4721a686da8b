/** Checks that `warren doctor` makes on Windows. */

import { errorMessage } from "../error.ts";
import { type Check, check, checkLibrary } from "../check.ts";
import { iphlpapi } from "./iphlpapi.ts";
import { ADMINISTRATOR_REMEDY, isAdministrator } from "./shell32.ts";
import { findWintun } from "./wintun.ts";

/** Runs the checks. None repairs anything, because a crash leaves nothing behind that matters (see `setup.ts`). */
export async function examine(): Promise<Check[]> {
  return [
    ...await check("wintun.dll", checkWintun),
    ...await check("iphlpapi.dll", checkIphlpapi),
    ...await check("privileges", checkAdministrator),
  ];
}

/** Reads the DLL but does not load it, which would remove other products' adapters. */
function checkWintun(): Check[] {
  const name = "wintun.dll";
  try {
    const { path, official, file } = findWintun();
    file[Symbol.dispose]();
    return [
      official ? { name, state: "ok", text: `${path} is an official build for this machine` } : {
        name,
        state: "warn",
        text: `${path} is not an official build; WARREN_WINTUN and its SHA-256 allow it`,
      },
    ];
  } catch (error) {
    return [{ name, state: "fail", text: errorMessage(error) }];
  }
}

function checkIphlpapi(): Check[] {
  const name = "iphlpapi.dll";
  const checks = checkLibrary(name, iphlpapi);
  if (checks.some(({ state }) => state === "fail") || iphlpapi().SetInterfaceDnsSettings !== null) {
    return checks;
  }
  const text = "it cannot set DNS servers: this needs Windows 10 version 2004 or later";
  return [{ name, state: "warn", text }];
}

function checkAdministrator(): Check[] {
  const name = "privileges";
  return [
    isAdministrator()
      ? { name, state: "ok", text: "administrator" }
      : { name, state: "fail", text: "not an administrator", remedy: ADMINISTRATOR_REMEDY },
  ];
}
