/**
 * Network address translation: NAPT44 (addresses and ports), static NAT (one to one), NPTv6 (IPv6 prefixes).
 *
 * @module
 */

export { Napt44 } from "./napt44.ts";
export { NaptDrop } from "./_napt_drop.ts";
export type { Filtering, Napt44Options, NaptTimeouts, PortForward } from "./_napt_options.ts";
export { Nptv6, type Nptv6Options } from "./nptv6.ts";
export { StaticNat, type StaticNatOptions, type StaticNatRule } from "./static_nat.ts";
