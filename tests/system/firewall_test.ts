/** firewall.ts and port_knock.ts between two namespaces, as real programs find them. */

import assert from "node:assert/strict";
import { type Namespace, systemTest } from "../kit/system.ts";
import { CROSSING, Crossing, firstAnswer, iperf, ping, Running, startScript } from "../kit/traffic.ts";

const NEEDS = { programs: ["ip", "ping", "curl", "nginx", "nmap", "traceroute", "iperf3", "sysctl"] };
const { left: INSIDE, right: OUTSIDE } = CROSSING;

/** A crossing whose script is one of `scripts/`: left is inside, right is outside. */
async function open(script: string): Promise<{ crossing: Crossing; running: Running } & AsyncDisposable> {
  await using undo = new AsyncDisposableStack();
  const crossing = undo.use(await Crossing.open());
  const running = undo.use(
    await startScript(crossing.middle, script, "--name", "left", "--far", "tun:right"),
  );
  await crossing.route();
  await firstAnswer(crossing.left, OUTSIDE.ipv4);
  await firstAnswer(crossing.left, OUTSIDE.ipv6);
  const all = undo.move();
  return { crossing, running, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

/** Starts a web server that says hello at these ports. */
async function serve(namespace: Namespace, ...ports: number[]): Promise<AsyncDisposable> {
  const folder = await Deno.makeTempDir();
  const listen = ports.map((port) => `listen ${port}; listen [::]:${port};`).join(" ");
  const config = `daemon off; pid ${folder}/pid; error_log stderr notice; events {}
    http { access_log off; client_body_temp_path ${folder}; proxy_temp_path ${folder}; fastcgi_temp_path ${folder};
      uwsgi_temp_path ${folder}; scgi_temp_path ${folder}; server { ${listen} return 200 "hello"; } }`;
  await Deno.writeTextFile(`${folder}/config`, config);
  const child = namespace.spawn("nginx", ["-c", `${folder}/config`, "-e", "stderr"]);
  const running = new Running(child, child.stdout, child.stderr);
  await running.said(/start worker process /);
  return {
    async [Symbol.asyncDispose]() {
      await running.stop("SIGQUIT");
      await running[Symbol.asyncDispose]();
      await Deno.remove(folder, { recursive: true });
    },
  };
}

/** What curl gets; "" when it gets nothing in 2 s. */
async function fetchText(namespace: Namespace, address: string, port: number): Promise<string> {
  const host = address.includes(":") ? `[${address}]` : address;
  const flags = ["-s", "-g", "--noproxy", "*", "--max-time", "2"];
  const { stdout } = await namespace.command("curl", [...flags, `http://${host}:${port}/`], { check: false });
  return stdout;
}

/** What nmap calls each port. */
async function scan(
  namespace: Namespace,
  address: string,
  ...flags: string[]
): Promise<Record<string, string>> {
  const family = address.includes(":") ? ["-6"] : [];
  const words = [...family, "-Pn", "-n", "--max-retries", "1", "-oG", "-", ...flags, address];
  const { stdout } = await namespace.command("nmap", words);
  return Object.fromEntries(
    Array.from(stdout.matchAll(/(\d+)\/([a-z|]+)\//g), ([, port, state]) => [port, state]),
  );
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
      assert.equal(await fetchText(left, OUTSIDE[version], 8080), "hello");
      assert.equal(await fetchText(right, INSIDE[version], 80), "hello");
      assert.equal(await fetchText(right, INSIDE[version], 8080), "");
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
      const { stdout } = await namespace.command("traceroute", [
        "-n",
        "-q",
        "1",
        "-w",
        "2",
        "-m",
        "5",
        destination,
      ]);
      assert.match(stdout, new RegExp(`^ *\\d+ +${destination.replaceAll(".", "\\.")} `, "m"));
    }
    const { code } = await running.stop();
    assert.equal(code, 0);
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
  assert.equal(await fetchText(right, INSIDE.ipv4, 22), "");
  await knock(7000, 8000, 9000);
  assert.equal(await fetchText(right, INSIDE.ipv4, 22), "hello");
  assert.equal(await fetchText(right, INSIDE.ipv6, 22), "");
});
