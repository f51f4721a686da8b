/** NAPT44 as text, packet by packet. */

import { Napt44, type Napt44Options } from "@warren/tunnel/nat";
import { goldenTests } from "../kit/golden.ts";

/** One inside network and one outside address, unless a case says otherwise. The first free port is the one that is chosen. */
goldenTests<Partial<Napt44Options>>(new URL("./napt44.txt", import.meta.url), (options) => [
  new Napt44({ outside: "198.51.100.1", inside: "10.9.0.0/24", random: () => 0, ...options }),
]);
