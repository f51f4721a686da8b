/** Packets on a bad road: what comes late, first, twice, wrong, or not at all. */

import { Impairment, type ImpairmentOptions } from "@warren/tunnel/impair";
import { goldenTests } from "../kit/golden.ts";

goldenTests<ImpairmentOptions>(
  new URL("impair.txt", import.meta.url),
  (options) => [new Impairment({ seed: 1, ...options })],
);
