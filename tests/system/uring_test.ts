/** TUN devices with io_uring, and without it when the kernel forbids it. */

import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";
import { command, openNamespace, systemTest } from "../kit/system.ts";

const NEEDS = { programs: ["ip", "tc", "cc"] };
const SUITE = fileURLToPath(new URL("./uring_scenario.ts", import.meta.url));
const WRAPPER = fileURLToPath(new URL("./refuse_uring.c", import.meta.url));
/** Documentation/admin-guide/sysctl/kernel.rst: 2 is "disabled for all processes". */
const DISABLED = "/proc/sys/kernel/io_uring_disabled";
// errno.h
const EPERM = "1";
const ENOSYS = "38";

/** Runs the suite in a namespace, behind this command. */
async function runSuite(before: readonly string[], ...words: string[]): Promise<void> {
  await using namespace = await openNamespace();
  await namespace.command("sysctl", ["-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
  const line = [...before, Deno.execPath(), "test", "--no-check", "--no-prompt", "--allow-all", SUITE];
  const { code, stdout, stderr } = await namespace.command(line[0]!, [...line.slice(1), "--", ...words], {
    check: false,
    env: { NO_COLOR: "1" },
  });
  assert.equal(code, 0, stdout + stderr);
  assert.match(stdout, /^ok \| \d+ passed \| 0 failed/m);
}

systemTest("TunDevice uses io_uring under load", NEEDS, () => runSuite([]));

systemTest("TunDevice uses io_uring without multishot reads", NEEDS, () => runSuite([], "oneshot"));

for (const [name, errno] of [["EPERM", EPERM], ["ENOSYS", ENOSYS]] as const) {
  systemTest(`TunDevice works without io_uring when seccomp refuses it with ${name}`, NEEDS, async () => {
    const program = await Deno.makeTempFile();
    try {
      await command("cc", ["-O2", "-Wall", "-Wextra", "-Werror", "-o", program, WRAPPER]);
      await runSuite([program, errno], "refused");
    } finally {
      await Deno.remove(program);
    }
  });
}

systemTest("TunDevice works without io_uring when kernel.io_uring_disabled is 2", NEEDS, async () => {
  const before = await Deno.readTextFile(DISABLED);
  await Deno.writeTextFile(DISABLED, "2");
  try {
    await runSuite([], "refused");
  } finally {
    await Deno.writeTextFile(DISABLED, before);
  }
});
