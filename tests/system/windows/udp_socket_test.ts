/** UDP sockets of Windows under Wine: conformance, and the tests of the transport. */

import { openWine, wineTest } from "../../kit/wine.ts";

wineTest("udp() under Wine conforms to the rules of an end, and refuses packets of strangers", async () => {
  await using wine = await openWine();
  await wine.tests("tests/conformance/transport_test.ts", 96);
  await wine.tests("tests/runtime/transport/udp_test.ts", 17);
});
