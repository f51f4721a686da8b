/** The firewall, as text. */

import { Firewall, type FirewallOptions } from "@warren/tunnel/firewall";
import { goldenTests } from "../kit/golden.ts";

goldenTests<FirewallOptions>(new URL("firewall.txt", import.meta.url), (options) => [new Firewall(options)]);
