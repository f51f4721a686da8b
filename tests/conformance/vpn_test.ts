/** A VPN end gives the guarantees of every end. */

import { MemoryDevice } from "../../driver/memory.ts";
import { VpnEnd } from "../../runtime/vpn/vpn_end.ts";
import { Seal, SEAL_OVERHEAD } from "../kit/seal.ts";
import { endConformance } from "./end.ts";

endConformance("VpnEnd over a MemoryDevice", () => {
  const pair = MemoryDevice.pair({ mtu: 9000, queueLength: 100, payload: "any" });
  const [near, far] = pair.map((end) => new VpnEnd(new Seal(77, false), end)) as [VpnEnd, VpnEnd];
  return { near, far, mtu: 9000 - SEAL_OVERHEAD, failsWithPeer: true, keeps: true };
});
