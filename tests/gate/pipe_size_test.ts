/** The pipe to Wintun stays small: library, adapter, session and device. */

import { ok } from "node:assert/strict";
import adapter from "../../driver/windows/adapter.ts" with { type: "text" };
import device from "../../driver/windows/device.ts" with { type: "text" };
import session from "../../driver/windows/session.ts" with { type: "text" };
import wintun from "../../driver/windows/wintun.ts" with { type: "text" };

const MAX_LINES = 950;

/** Lines of code: neither empty nor of comments alone. */
function linesOfCode(text: string): number {
  return text.split("\n").filter((line) => !/^\s*(\/[/*]|\*|$)/.test(line)).length;
}

Deno.test(`the pipe to Wintun has at most ${MAX_LINES} lines of code`, () => {
  const lines = [wintun, adapter, session, device].map(linesOfCode);
  // An empty text would pass.
  ok(lines.every((count) => count > 50), lines.join(" + "));
  const sum = lines.reduce((total, count) => total + count, 0);
  ok(sum <= MAX_LINES, `${lines.join(" + ")} = ${sum}`);
});
