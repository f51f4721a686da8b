/** scripts/router.ts among three namespaces. */

import { deepEqual, equal, match, ok } from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { link, type Namespace, openNamespace, systemTest } from "../kit/system.ts";
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

const SPLIT = new URL("../../scripts/split_tunnel.ts", import.meta.url);
const OFFICE = fileURLToPath(new URL("../../scripts/plain_udp.ts", import.meta.url));

systemTest("scripts/split_tunnel.ts sends the office's packets to the office, and others out", {
  programs: ["ip", "ping", "tcpdump", "dig"],
}, async () => {
  await using here = await openNamespace();
  await using office = await openNamespace();
  await using outside = await openNamespace();
  await link(
    { namespace: here, name: "eth0", addresses: ["192.0.2.2/24"] },
    { namespace: office, name: "eth0", addresses: ["192.0.2.1/24"] },
  );
  const start = async (namespace: Namespace, ...words: string[]): Promise<Running> => {
    const args = ["run", "--no-prompt", "--allow-ffi", "--config", SETTINGS, ...words];
    const child = namespace.spawn(Deno.execPath(), args);
    const running = new Running(child, child.stdout, child.stderr);
    await running.said(/is open/);
    return running;
  };
  await using there = await start(office, OFFICE, "--name", "vpn", "--address", "10.20.0.1/16");
  await using splitting = await start(here, fileURLToPath(SPLIT));
  await give(here, outside, "direct", "198.51.100.1/24");
  await here.command("ip", ["route", "add", "198.51.100.0/24", "dev", "split"]);

  for (const to of ["10.20.0.1", "198.51.100.1"]) {
    const { answered, odd } = await ping(here, to, "-c", "3", "-i", "0.05", "-W", "5");
    deepEqual([answered, odd], [[1, 2, 3], []], to);
  }
  const sniffer = office.spawn("tcpdump", [
    "-n",
    "-i",
    "vpn",
    "-c",
    "1",
    "--immediate-mode",
    "udp dst port 53",
  ]);
  await using sniffing = new Running(sniffer, sniffer.stdout, sniffer.stderr);
  await sniffing.said(/listening on/);
  await here.command("dig", ["+time=1", "+tries=1", "@198.51.100.1", "example.org"], { check: false });
  await sniffing.said(/10\.20\.255\.1\.\d+ > 198\.51\.100\.1\.53: /);
  for (const running of [splitting, there]) {
    const { code, heard } = await running.stop("SIGINT");
    equal(code, 0, heard);
  }
});
