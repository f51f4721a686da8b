/** A firewall and a NAT under a flood of new flows: what is known stays bounded, and who is connected stays so. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { command } from "../kit/system.ts";
import type { Flood } from "./flood_scenario.ts";

/** V8's young generation has its size from the start: it would double once, whenever it likes. */
const HEAP = "--v8-flags=--expose-gc,--min-semi-space-size=16,--max-semi-space-size=16";
const SCENARIO = fileURLToPath(new URL("./flood_scenario.ts", import.meta.url));

Deno.test("A firewall and a NAT bear a million new flows behind a million: memory stays, a connection goes on, nothing leaks", async () => {
  const { stdout } = await command(Deno.execPath(), [
    "run",
    "--no-prompt",
    "--quiet",
    HEAP,
    SCENARIO,
  ]);
  const { resident: [warm, end], known, sent, answered, leaked, balanced }: Flood = JSON.parse(stdout);
  console.log(`      ${warm.toFixed(1)} MiB after a million flows, ${end.toFixed(1)} after the second`);
  assert.ok(Math.abs(end / warm - 1) < 0.05, `${warm} MiB became ${end} MiB`);
  for (const { name, size, capacity } of known) {
    assert.ok(size <= capacity && size > 1000, `${name}: ${size}`);
  }
  assert.ok(sent > 300, `${sent} packets of the connection`);
  assert.deepEqual([answered, leaked, balanced], [sent, 0, true]);
});
