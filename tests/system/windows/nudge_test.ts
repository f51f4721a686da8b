/** A packet does not stay in the ring when Wintun misses its wakeup. */

import { openWine, wineTest } from "../../kit/wine.ts";

wineTest("WintunDevice nudges Windows after the last packet", async () => {
  await using wine = await openWine();
  await wine.tests("tests/system/windows/nudge_checks.ts", 2, { env: { STAND_IN_FAULTS: "miss=1" } });
});
