/** Constants that duplicate deno.json. */

import assert from "node:assert/strict";
import config from "../../../deno.json" with { type: "json" };
import { NAME, VERSION } from "../../../runtime/cli/version.ts";

Deno.test("NAME and VERSION are those of deno.json", () => {
  assert.deepEqual([NAME, VERSION], [config.name, config.version]);
});
