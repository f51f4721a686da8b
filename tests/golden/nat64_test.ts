/** NAT64 as text, packet by packet. */

import { IcmpErrors } from "@warren/tunnel/icmp_error";
import { Nat64, type Nat64Options } from "@warren/tunnel/nat64";
import { goldenTests } from "../kit/golden.ts";

goldenTests<Partial<Nat64Options>>(new URL("nat64.txt", import.meta.url), (options) => [
  new Nat64({
    outside: "198.51.100.1",
    random: () => 6,
    errors: new IcmpErrors({ address: ["198.51.100.1", "fd64::64"] }),
    ...options,
  }),
]);
