/** Fragments, as text. */

import { fragment, type FragmentOptions } from "@warren/tunnel/fragment";
import { goldenTests } from "../kit/golden.ts";

interface Options extends FragmentOptions {
  mtu: number;
}

goldenTests<Options>(new URL("fragment.txt", import.meta.url), ({ mtu, ...options }) => [
  fragment(mtu, options),
]);
