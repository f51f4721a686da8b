/** The stand-in for wintun.dll behaves like the library. */

import { openWine, wineTest } from "../../kit/wine.ts";

wineTest("the stand-in for wintun.dll keeps the documented semantics", async () => {
  await using wine = await openWine();
  await wine.tests("tests/system/windows/stand_in_checks.ts", 20);
});
