/** Warren's name and version, and the Deno that it is built and tested with. */

/** The package's name, as in deno.json. */
export const NAME = "@warren/tunnel";
/** The package's version, as in deno.json. */
export const VERSION = "0.1.0";
/** The version of Deno. */
export const DENO_VERSION = "2.9.6";
