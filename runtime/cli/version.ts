/** Name and version of Warren, and the Deno version that it is tested with. */

/** Package name, as in deno.json. */
export const NAME = "@warren/tunnel";
/** Package version, as in deno.json. */
export const VERSION = "0.1.0";
/** Deno version that Warren is tested with. */
export const DENO_VERSION = "2.9.6";
