/** What a user gets who mistypes an option: types are not checked where a script runs. */

import { throws } from "node:assert/strict";
import { Capture } from "@warren/tunnel/capture";
import { DnsResolver } from "@warren/tunnel/dns";
import { Firewall } from "@warren/tunnel/firewall";
import { Impairment } from "@warren/tunnel/impair";
import { Meter } from "@warren/tunnel/meter";
import { Napt44, Nptv6, StaticNat } from "@warren/tunnel/nat";
import { Nat64 } from "@warren/tunnel/nat64";
import { route } from "@warren/tunnel/route";
import { Shaper } from "@warren/tunnel/shape";
import { ttl } from "@warren/tunnel/ttl";

const MAKE: Record<string, (options: never) => unknown> = {
  "Napt44": (options) => new Napt44(options),
  "a timeout of Napt44": (timeouts) => new Napt44({ outside: "192.0.2.1", timeouts }),
  "a forwarded port": (forward) => new Napt44({ outside: "192.0.2.1", forwards: [forward] }),
  "StaticNat": (options) => new StaticNat(options),
  "a rule of StaticNat": (rule) => new StaticNat({ rules: [rule] }),
  "Nptv6": (options) => new Nptv6(options),
  "Nat64": (options) => new Nat64(options),
  "Firewall": (options) => new Firewall(options),
  "route()": (options) => route([], options),
  "a policy": (policy) => route([policy]),
  "Shaper": (options) => new Shaper(options),
  "a direction of Shaper": (outbound) => new Shaper({ outbound }),
  "Impairment": (outbound) => new Impairment({ outbound }),
  "DnsResolver": (options) => new DnsResolver(options),
  "Meter": (options) => new Meter(options),
  "Capture": (options) => new Capture({ write: () => {} }, options),
  "ttl": (options) => ttl(options),
};

for (const [what, make] of Object.entries(MAKE)) {
  Deno.test(`${what} refuses an option that there is not, and names those that there are`, () => {
    throws(() => make({ outsde: 1 } as never), /^TypeError: Cannot .*: there is no option "outsde": .* are$/);
    throws(() => make(7 as never), /^TypeError: Cannot .*: 7 is no object of options$/);
  });
}

for (const what of ["Napt44", "a forwarded port", "StaticNat", "Nptv6", "Nat64", "a policy", "DnsResolver"]) {
  Deno.test(`${what} says what is missing`, () => {
    throws(() => MAKE[what]!({} as never), /^TypeError: Cannot .*: \w+ is missing$/);
  });
}
