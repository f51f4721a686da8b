/** TUN devices fulfill the contract of every end. */

import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";
import { openNamespace, systemTest } from "../kit/system.ts";

const NEEDS = { programs: ["ip", "tc"] };
const SUITE = new URL("./tun_conformance_scenario.ts", import.meta.url);

systemTest(
  "TunDevice keeps what every end promises, between two devices of one namespace",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    // The kernel's own packets (RFC 4861 section 6.3.7) would mix with those of the suite.
    await namespace.command("sysctl", ["-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
    const args = ["test", "--no-check", "--no-prompt", "--allow-all", fileURLToPath(SUITE)];
    const { code, stdout, stderr } = await namespace.command(Deno.execPath(), args, {
      check: false,
      env: { NO_COLOR: "1" },
    });
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, /^ok \| \d{2} passed \| 0 failed/m);
  },
);
