/** The system's library of sockets, for tests: opened for good, so not within a test. */

import { openUdpSocket } from "../../driver/mod.ts";
import { parseAddress } from "../../lib/address.ts";

/** Has the library be open from now on. To be called outside of tests. */
export async function openSockets(): Promise<void> {
  (await openUdpSocket({ address: parseAddress("127.0.0.1") })).close();
}
