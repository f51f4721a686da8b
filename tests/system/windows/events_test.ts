/** A Wintun device tells what happens to its interface. */

import { openWine, wineTest } from "../../kit/wine.ts";

wineTest("WintunDevice.events() tells what happens to the interface", async () => {
  await using wine = await openWine();
  await wine.tests("tests/system/windows/events_checks.ts", 5);
});
