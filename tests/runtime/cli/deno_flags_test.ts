/** Deno flags that are passed on to a script. */

import { deepEqual, equal } from "node:assert/strict";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { denoFlagsOf, isDenoFlag } from "../../../runtime/cli/deno_flags.ts";

Deno.test("denoFlagsOf() passes on flags that concern the script, but no permissions, settings and arguments of Warren", () => {
  const main = pathToFileURL(resolve("runtime/cli/main.ts")).href;
  const words = [
    ...["run", "-A", "--no-check", "--config", "deno.json", "--cert", "ca.pem", "--v8-flags=--expose-gc"],
    ...["--unstable-net", "--inspect-brk", "--lock=other.lock", "runtime/cli/main.ts"],
    ...["run", "--cert=not-this.pem", "my.ts", "--cached-only"],
  ];
  deepEqual(denoFlagsOf(words, main), [
    ...["--cert=ca.pem", "--v8-flags=--expose-gc", "--unstable-net", "--inspect-brk"],
  ]);
  deepEqual(denoFlagsOf(["run", "--cert"], main), []);
  deepEqual(denoFlagsOf(["run", "--cached-only", main], main), ["--cached-only"]);
});

Deno.test("isDenoFlag() accepts only complete flags", () => {
  const flags = [
    "--cert=a",
    "--no-remote",
    "--unsafely-ignore-certificate-errors",
    "--inspect=127.0.0.1:9229",
  ];
  for (const flag of flags) equal(isDenoFlag(flag), true, flag);
  for (
    const word of [
      "--cert",
      "--cert=",
      "--allow-all",
      "-A",
      "--config=x",
      "--lock=x",
      "--certainly=x",
      "my.ts",
    ]
  ) {
    equal(isDenoFlag(word), false, word);
  }
});
