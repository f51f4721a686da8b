/** firewall.ts and port_knock.ts between two namespaces, as real programs find them. */

import assert from "node:assert/strict";
import { type Namespace, systemTest } from "../kit/system.ts";
import { dig, fetchText, nameServer, scan, type Server, traceroute, webServer } from "../kit/servers.ts";
import {
  Capture,
  CROSSING,
  Crossing,
  DEVICES,
  endCaptures,
  firstAnswer,
  iperf,
  judge,
  ping,
  type Running,
  startScript,
} from "../kit/traffic.ts";

const NEEDS = {
  programs: [
    ...["curl", "dig", "dnsmasq", "ip", "iperf3", "nginx", "nmap", "ping", "sysctl", "tcpdump", "traceroute"],
    "tshark",
  ],
};
const { left: INSIDE, right: OUTSIDE } = CROSSING;

/** A crossing whose script is one of `scripts/`: left is inside, right is outside. */
async function open(
  script: string,
  flags = ["--far", "tun:right"],
): Promise<{ crossing: Crossing; running: Running } & AsyncDisposable> {
  await using undo = new AsyncDisposableStack();
  const crossing = undo.use(await Crossing.open());
  const running = undo.use(
    await startScript(crossing.middle, script, "--name", "left", ...flags),
  );
  await crossing.route();
  await firstAnswer(crossing.left, OUTSIDE.ipv4);
  await firstAnswer(crossing.left, OUTSIDE.ipv6);
  const all = undo.move();
  return { crossing, running, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

/** Starts a web server that says hello at these ports. */
function serve(namespace: Namespace, ...ports: number[]): Promise<Server> {
  return webServer(
    namespace,
    ...ports.map((port) => `listen ${port}; listen [::]:${port};`),
    `return 200 "hello";`,
  );
}

/** Where a web server is. */
function url(address: string, port: number): string {
  return `http://${address.includes(":") ? `[${address}]` : address}:${port}/`;
}

systemTest(
  "firewall.ts lets out what goes out, answers in, and nmap sees only what a rule shows",
  NEEDS,
  async () => {
    await using opened = await open("firewall.ts");
    const { crossing: { left, right }, running } = opened;
    await using _inside = await serve(left, 80, 8080);
    await using _outside = await serve(right, 8080);

    for (const version of ["ipv4", "ipv6"] as const) {
      assert.equal(await fetchText(left, url(OUTSIDE[version], 8080)), "hello");
      assert.equal(await fetchText(right, url(INSIDE[version], 80)), "hello");
      assert.equal(await fetchText(right, url(INSIDE[version], 8080)), "");
      const ports = await scan(right, INSIDE[version], "-sS", "-p", "22,25,80,443,8080");
      assert.deepEqual(ports, { 22: "closed", 25: "filtered", 80: "open", 443: "closed", 8080: "filtered" });
      for (const [namespace, destination] of [[left, OUTSIDE], [right, INSIDE]] as const) {
        const { answered } = await ping(namespace, "-c", "3", "-w", "10", "-i", "0.05", destination[version]);
        assert.deepEqual(answered, [1, 2, 3]);
      }
    }
    // Segments without a connection: what is not of a flow is not answered, whatever the rules allow.
    for (const kind of ["-sA", "-sF", "-sX", "-sN"]) {
      const states = Object.values(await scan(right, INSIDE.ipv4, kind, "-p", "80,8080"));
      assert.ok(states.every((state) => state.includes("filtered")), `nmap ${kind}: ${states}`);
    }
    // Port unreachable comes in as an error about what went out, and goes out as the firewall's own answer.
    for (const [namespace, destination] of [[left, OUTSIDE.ipv4], [right, INSIDE.ipv4]] as const) {
      assert.equal((await traceroute(namespace, destination)).at(-1), destination);
    }
    const { code } = await running.stop();
    assert.equal(code, 0);
  },
);

systemTest(
  "Every packet that passes firewall.ts, and that it answers with, is right to tshark",
  NEEDS,
  async () => {
    await using opened = await open("firewall.ts", ["--no-offload", "--far", "tun:right?offload=no"]);
    const { left, middle, right } = opened.crossing;
    await using _inside = await serve(left, 80);
    await using _outside = await serve(right, 8080);
    await using _names = await nameServer(right, OUTSIDE.ipv4, "--host-record=www.example,192.0.2.80");
    await using captures = new AsyncDisposableStack();
    const both: Capture[] = [];
    for (const device of DEVICES) {
      both.push(
        captures.use(await Capture.open(middle, device, "ip or ip6", 65_535)),
      );
    }

    for (const version of ["ipv4", "ipv6"] as const) {
      assert.equal(await fetchText(left, url(OUTSIDE[version], 8080)), "hello");
      assert.equal(await fetchText(right, url(INSIDE[version], 80)), "hello");
      await scan(right, INSIDE[version], "-sS", "-p", "22,25,80,443,8080");
      assert.equal((await traceroute(left, OUTSIDE[version])).at(-1), OUTSIDE[version]);
      assert.equal((await traceroute(right, INSIDE[version])).at(-1), INSIDE[version]);
      const { answered } = await ping(left, "-c", "3", "-i", "0.05", "-s", "4000", OUTSIDE[version]);
      assert.deepEqual(answered, [1, 2, 3]);
    }
    const { answers } = await dig(left, OUTSIDE.ipv4, "www.example");
    assert.deepEqual(answers.map((line) => line.split(" ").at(-1)), ["192.0.2.80"]);
    await iperf(left, right, OUTSIDE.ipv4, "-n", "1M");
    await iperf(left, right, OUTSIDE.ipv6, "-n", "1M", "-R");
    await endCaptures(left, OUTSIDE.ipv4, both);
    for (const capture of both) {
      const { packets, faults } = await judge(capture.file);
      assert.deepEqual({ packets, faults }, { packets: capture.packets.length, faults: [] }, capture.device);
    }
  },
);

systemTest("firewall.ts carries iperf3 both ways while nmap knocks at every port", NEEDS, async () => {
  await using opened = await open("firewall.ts");
  const { left, right } = opened.crossing;
  for (const flags of [[], ["-R"]]) {
    const [{ end }, ports] = await Promise.all([
      iperf(left, right, OUTSIDE.ipv4, "-t", "3", ...flags),
      scan(right, INSIDE.ipv4, "-sS", "--max-retries", "0", "--min-rate", "20000", "-p", "1-30000"),
    ]);
    const rate = end.sum_received.bits_per_second / 1e6;
    console.log(`firewall.ts, iperf3 ${flags.join(" ")} beside nmap: ${rate.toFixed(0)} Mbit/s`);
    assert.ok(rate > 20, `${rate} Mbit/s`);
    assert.ok(!Object.values(ports).includes("open"));
  }
});

systemTest("port_knock.ts opens ssh to who knocks in order, and to nobody else", NEEDS, async () => {
  await using opened = await open("port_knock.ts");
  const { left, right } = opened.crossing;
  await using _inside = await serve(left, 22);
  const knock = async (...ports: number[]) => {
    for (const port of ports) await scan(right, INSIDE.ipv4, "-sS", "-p", `${port}`);
  };
  await knock(7000, 9000, 8000);
  assert.equal(await fetchText(right, url(INSIDE.ipv4, 22)), "");
  await knock(7000, 7000, 8000, 7000, 9000);
  assert.equal(await fetchText(right, url(INSIDE.ipv4, 22)), "hello");
  // Knocks that come again, and other ports, close nothing.
  await knock(7000, 80);
  assert.equal(await fetchText(right, url(INSIDE.ipv4, 22)), "hello");
  assert.equal(await fetchText(right, url(INSIDE.ipv6, 22)), "");
});
