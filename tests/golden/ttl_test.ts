/** The `ttl` stage, as text. */

import { IcmpErrors } from "@warren/tunnel/icmp_error";
import { ttl, type TtlOptions } from "@warren/tunnel/ttl";
import { goldenTests } from "../kit/golden.ts";

interface Options extends TtlOptions {
  address?: string[];
}

goldenTests<Options>(new URL("ttl.txt", import.meta.url), ({ address, ...options }) => [
  ttl({ ...options, errors: new IcmpErrors({ address }) }),
]);
