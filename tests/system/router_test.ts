/** scripts/router.ts among three namespaces. */

import { deepEqual, equal, match, ok } from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { type Namespace, openNamespace, systemTest } from "../kit/system.ts";
import { ping, Running } from "../kit/traffic.ts";

const SCRIPT = fileURLToPath(new URL("../../scripts/router.ts", import.meta.url));
const SETTINGS = fileURLToPath(new URL("../../deno.json", import.meta.url));

async function give(router: Namespace, to: Namespace, device: string, ...addresses: string[]): Promise<void> {
  await router.command("ip", ["link", "set", device, "netns", to.name]);
  for (const address of addresses) await to.command("ip", ["addr", "add", address, "dev", device]);
  await to.command("ip", ["link", "set", device, "up"]);
  await to.command("ip", ["route", "add", "default", "dev", device]);
}

systemTest("scripts/router.ts routes among three networks, by source and by port", {
  programs: ["ip", "ping", "traceroute", "tcpdump", "curl"],
}, async () => {
  await using router = await openNamespace();
  await using lan = await openNamespace();
  await using dmz = await openNamespace();
  const args = ["run", "--no-prompt", "--allow-ffi", "--config", SETTINGS, SCRIPT];
  const child = router.spawn(Deno.execPath(), args);
  await using running = new Running(child, child.stdout, child.stderr);
  await running.said(/is open/);
  await give(router, lan, "lan", "10.1.0.2/16", "10.1.200.2/16");
  await give(router, dmz, "dmz", "10.2.0.2/16");

  const pings: [from: Namespace, to: string, ...options: string[]][] = [
    [lan, "10.2.0.2"],
    [dmz, "10.1.0.2"],
    [lan, "10.0.0.1"],
    [dmz, "10.0.0.1"],
    [router, "10.1.0.2"],
    [router, "10.2.0.2"],
    [lan, "10.0.0.1", "-I", "10.1.200.2"],
  ];
  for (const [from, to, ...options] of pings) {
    const { answered, odd } = await ping(from, to, "-c", "3", "-i", "0.05", "-W", "5", ...options);
    deepEqual([answered, odd], [[1, 2, 3], []], `${to} ${options.join(" ")}`);
  }
  const guest = await ping(lan, "10.2.0.2", "-c", "2", "-i", "0.1", "-W", "1", "-I", "10.1.200.2");
  deepEqual(guest.answered, [], "a guest sees no neighbour");

  const { stdout } = await lan.command("traceroute", ["-n", "-q", "1", "-w", "5", "10.2.0.2"]);
  match(stdout, /^ 1 {2}10\.0\.0\.254 .*\n 2 {2}10\.2\.0\.2 /m);

  const sniffer = dmz.spawn("tcpdump", ["-n", "-i", "dmz", "-c", "1", "--immediate-mode", "tcp dst port 25"]);
  await using sniffing = new Running(sniffer, sniffer.stdout, sniffer.stderr);
  await sniffing.said(/listening on/);
  await lan.command("curl", ["-s", "--connect-timeout", "0.5", "telnet://10.0.0.1:25"], { check: false });
  await sniffing.said(/10\.1\.0\.2\.\d+ > 10\.0\.0\.1\.25: Flags \[S\]/);

  const unreachable = await ping(router, "10.1.77.1", "-c", "1", "-W", "1");
  equal(unreachable.answered.length, 0);
  const { code, heard } = await running.stop("SIGINT");
  equal(code, 0, heard);
  ok(!heard.includes("malformed"), heard);
});
