/** IPv6 prefix translation as text, packet by packet. */

import { Nptv6, type Nptv6Options } from "@warren/tunnel/nat";
import { goldenTests } from "../kit/golden.ts";

/** The prefixes of the example of RFC 6296 section 3.6, unless a case says otherwise. */
goldenTests<Partial<Nptv6Options>>(new URL("./nptv6.txt", import.meta.url), (options) => [
  new Nptv6({ inside: "fd01:203:405::/48", outside: "2001:db8:1::/48", ...options }),
]);
