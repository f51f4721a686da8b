/** What `warren doctor` looks at on Windows. */

import { errorMessage } from "../error.ts";
import { type Check, check } from "../check.ts";
import { iphlpapi } from "./iphlpapi.ts";
import { ADMINISTRATOR_REMEDY, isAdministrator } from "./shell32.ts";
import { findWintun } from "./wintun.ts";

/** Makes the checks. A crash leaves nothing to repair: see `setup.ts`. */
export async function examine(): Promise<Check[]> {
  return [
    ...await check("wintun.dll", checkWintun),
    ...await check("iphlpapi.dll", checkIphlpapi),
    ...await check("privileges", checkAdministrator),
  ];
}

/** Looks at the DLL without loading it: that would remove other products' adapters. */
function checkWintun(): Check[] {
  const what = "wintun.dll";
  try {
    const { path, official, file } = findWintun();
    file[Symbol.dispose]();
    return [
      official ? { what, state: "ok", says: `${path} is an official build for this machine` } : {
        what,
        state: "warn",
        says: `${path} is no official build; WARREN_WINTUN and its SHA-256 name it`,
      },
    ];
  } catch (error) {
    return [{ what, state: "fail", says: errorMessage(error) }];
  }
}

function checkIphlpapi(): Check[] {
  const what = "iphlpapi.dll";
  try {
    const { SetInterfaceDnsSettings } = iphlpapi();
    return [
      SetInterfaceDnsSettings === null
        ? { what, state: "warn", says: "it cannot set name servers: Windows 10 2004 has that first" }
        : { what, state: "ok", says: "it loads, with every function that Warren calls" },
    ];
  } catch (error) {
    return [{ what, state: "fail", says: errorMessage(error) }];
  }
}

function checkAdministrator(): Check[] {
  const what = "privileges";
  return [
    isAdministrator()
      ? { what, state: "ok", says: "an administrator's" }
      : { what, state: "fail", says: "not an administrator's", remedy: ADMINISTRATOR_REMEDY },
  ];
}
