/** Fragments joined again, as text. */

import { Reassemble, type ReassembleOptions } from "@warren/tunnel/reassemble";
import { goldenTests } from "../kit/golden.ts";

goldenTests<ReassembleOptions>(new URL("reassemble.txt", import.meta.url), (options) => [
  new Reassemble(options),
]);
