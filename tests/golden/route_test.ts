/** Routes among this machine and two ends, as text: `far` is what goes to an end, `device` what goes to this machine. */

import { IcmpErrors } from "@warren/tunnel/icmp_error";
import { type Policy, route } from "@warren/tunnel/route";
import { goldenTests } from "../kit/golden.ts";

goldenTests<{ policies?: Policy[]; errors?: string }>(
  new URL("./route.txt", import.meta.url),
  ({ policies = [], errors }) => [
    route(policies, errors === undefined ? {} : { errors: new IcmpErrors({ address: errors }) }),
  ],
);
