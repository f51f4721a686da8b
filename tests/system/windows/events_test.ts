/** Events of a Wintun device. */

import { openWine, wineTest } from "../../kit/wine.ts";

wineTest("WintunDevice.events() reports changes of the interface", async () => {
  await using wine = await openWine();
  await wine.tests("tests/system/windows/events_checks.ts", 5);
});
