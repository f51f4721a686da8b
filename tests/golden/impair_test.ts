/** Packets on an impaired link, as text: delayed, reordered, duplicated, corrupted or lost. */

import { Impairment, type ImpairmentOptions } from "@warren/tunnel/impair";
import { goldenTests } from "../kit/golden.ts";

goldenTests<ImpairmentOptions>(
  new URL("impair.txt", import.meta.url),
  (options) => [new Impairment({ seed: 1, ...options })],
);
