/** The system's libraries of sockets, for tests: opened for good, so not within a test. */

import { openUdpSocket } from "../../driver/mod.ts";
import { parseAddress } from "../../lib/wire/address.ts";

/** Has the libraries be open from now on. To be called outside of tests. */
export async function openSockets(): Promise<void> {
  const address = parseAddress("127.0.0.1");
  (await openUdpSocket({ address })).close();
  // Windows has a library of its own for interfaces.
  await openUdpSocket({ address, interface: "not there" }).catch(() => {});
}
