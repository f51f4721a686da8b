/** Name and version of Warren, and the version of Deno that it is tested with. */

/** Package name, as in deno.json. */
export const NAME = "@warren/tunnel";
/** Package version, as in deno.json. */
export const VERSION = "0.1.0";
/** Version of Deno. */
export const DENO_VERSION = "2.9.6";
