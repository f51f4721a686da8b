/** Static NAT as text, packet by packet. */

import { StaticNat, type StaticNatOptions } from "@warren/tunnel/nat";
import { goldenTests } from "../kit/golden.ts";

/** An address and a prefix, unless a case says otherwise. */
goldenTests<Partial<StaticNatOptions>>(new URL("./static_nat.txt", import.meta.url), (options) => [
  new StaticNat({ rules: [
    { inside: "10.9.0.5", outside: "198.51.100.1" },
    { inside: "10.9.1.0/24", outside: "203.0.113.0/24" },
  ], ...options }),
]);
