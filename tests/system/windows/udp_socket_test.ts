/** UDP sockets of Windows: what every end promises, and what the transport is tested for, under Wine. */

import { openWine, wineTest } from "../../kit/wine.ts";

wineTest("udp() under Wine keeps what every end promises, and refuses what strangers send", async () => {
  await using wine = await openWine();
  await wine.tests("tests/conformance/transport_test.ts", 64);
  await wine.tests("tests/runtime/transport/udp_test.ts", 17);
});
