/** The Windows driver in deno.exe, over the stand-ins: what it promises, and what it does when things go wrong. */

import { openNamespace } from "../../kit/system.ts";
import { openWine, windowsPath, wineTest } from "../../kit/wine.ts";

/** What runs under Wine, and how many tests each file has. */
const CHECKS = [
  { file: "conformance_checks.ts", tests: 16, shows: "it keeps what every end promises" },
  { file: "fault_checks.ts", tests: 13, shows: "it bears what goes wrong while packets move" },
] as const;

/** Adapters' ports, which the test's own namespace has free: to a partner, or back to itself. */
const ROADS = [
  "near0=47201:47202",
  "far0=47202:47201",
  "near1=47203:47204",
  "far1=47204:47203",
  "loop0=47205:47205",
  "loop1=47206:47206",
].join(",");

wineTest("the Windows driver under Wine", async (context) => {
  await using namespace = await openNamespace();
  await using wine = await openWine({ namespace });
  for (const { file, tests, shows } of CHECKS) {
    await context.step(shows, () =>
      wine.tests(`tests/system/windows/${file}`, tests, {
        env: { STAND_IN_ROADS: ROADS, STAND_IN_CALLS: windowsPath(`${wine.folder}/calls`) },
      }));
  }
});
