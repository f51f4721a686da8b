/**
 * Conformance of WintunDevice as an end; device_test.ts runs it under Wine. It needs only `--allow-ffi`, the variables
 * of the stand-ins, and `STAND_IN_LINKS` with the links of {@linkcode PAIRS}.
 */

import { checkDeviceOptions } from "../../../driver/options.ts";
import { openWintunDevice, type WintunDevice } from "../../../driver/windows/device.ts";
import { iphlpapi } from "../../../driver/windows/iphlpapi.ts";
import { isAdministrator } from "../../../driver/windows/shell32.ts";
import { collectErrors } from "../../../driver/windows/wintun.ts";
import { endConformance } from "../../conformance/end.ts";

/** near0=47201:47202,far0=47202:47201,near1=47203:47204,far1=47204:47203 */
const PAIRS = 2;
const MTU = 9000;
const MIN_CAPACITY = 0x2_0000;
/** More than both rings hold of the suite's packets, and the socket between them. */
const OVERLOAD = 50_000;

// Libraries and the logger stay open, so they are opened outside the tests' leak checks.
iphlpapi();
isAdministrator();
await collectErrors(() => Promise.resolve());

const inUse = new Set<number>();

function open(name: string): Promise<WintunDevice> {
  return openWintunDevice(checkDeviceOptions({ name, mtu: MTU, windows: { ringCapacity: MIN_CAPACITY } }));
}

endConformance("WintunDevice", async () => {
  const pair = Array.from({ length: PAIRS }, (_, i) => i).find((i) => !inUse.has(i))!;
  inUse.add(pair);
  const near = await open(`near${pair}`);
  const far = await open(`far${pair}`);
  return {
    near,
    far,
    mtu: MTU,
    least: 20,
    failsWithPeer: false,
    overload: OVERLOAD,
    gone: async () => {
      await Promise.all([near.closed, far.closed]);
      inUse.delete(pair);
    },
  };
});
