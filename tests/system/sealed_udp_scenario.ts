#!/usr/bin/env -S deno run --allow-ffi
/** A VPN by a pre-shared key, as far as it is a test's: the side that listens follows a peer that proves itself. */

import { script, udp } from "@warren/tunnel";
import { Seal } from "../kit/seal.ts";

const options = { address: "10.9.0.1/24", mtu: 1400, far: udp({ listen: 4500, payload: "any" }) };

export default script(import.meta, options, (tunnel) => tunnel.use(new Seal(0x5a, true)).run());
