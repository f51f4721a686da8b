/** MemoryDevice gives the guarantees of every end. */

import { MemoryDevice } from "../../driver/memory.ts";
import { endConformance } from "./end.ts";

endConformance("MemoryDevice", () => {
  const [near, far] = MemoryDevice.pair({ mtu: 9000, queueLength: 100 });
  return { near, far, mtu: 9000, failsWithPeer: true };
});
