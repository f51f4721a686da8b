/** The selection among a name's addresses. */

import { deepStrictEqual } from "node:assert/strict";
import { selectAddresses } from "../../../runtime/transport/resolve_host.ts";

Deno.test("selectAddresses() takes eight addresses of each family at most, in their order, each once", () => {
  const ipv6 = Array.from({ length: 20 }, (_, i) => `2001:db8::${(i + 1).toString(16)}`);
  const ipv4 = Array.from({ length: 20 }, (_, i) => `192.0.2.${i + 1}`);
  const found = ["fe80::1%eth0", ipv6[0]!, "2001:0db8::0001", ...ipv6.slice(1), ...ipv4];
  const taken = selectAddresses(found, 4500);
  deepStrictEqual(taken.map(({ host }) => host), [...ipv6.slice(0, 8), ...ipv4.slice(0, 8)]);
  deepStrictEqual(taken[8], { host: "192.0.2.1", port: 4500, family: 4 });
});

Deno.test("selectAddresses() leaves out addresses that are no machine's, as parsePeer() does", () => {
  const found = ["0.0.0.0", "::", "255.255.255.255", "239.1.1.1", "ff02::1", "fe80::1%2", "192.0.2.1"];
  deepStrictEqual(selectAddresses(found, 4500).map(({ host }) => host), ["192.0.2.1"]);
});
