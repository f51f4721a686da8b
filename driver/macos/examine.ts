/** Checks of `warren doctor` on macOS. */

import { checkRoot } from "../bsd/examine.ts";
import { type Check, check, checkLibrary } from "../check.ts";
import { darwin } from "./libsystem.ts";
import { hasUtun } from "./utun.ts";

/** Runs the checks. Nothing needs repair after a crash, because the system removes the device with its process. */
export async function examine(): Promise<Check[]> {
  return [
    ...await check("libSystem", checkLibSystem),
    ...await check("utun", checkUtun),
    ...await check("privileges", () => checkRoot(darwin())),
  ];
}

function checkLibSystem(): Check[] {
  const name = "libSystem";
  const checks = checkLibrary(name, darwin);
  if (checks.some(({ state }) => state === "fail")) return checks;
  const { recvmsg_x, sendmsg_x } = darwin().functions;
  return recvmsg_x === null || sendmsg_x === null
    ? [{ name, state: "warn", text: "it lacks recvmsg_x or sendmsg_x: each packet takes a system call" }]
    : checks;
}

function checkUtun(): Check[] {
  const name = "utun";
  return [
    hasUtun(darwin())
      ? { name, state: "ok", text: "available" }
      : { name, state: "fail", text: "this system has no utun" },
  ];
}
