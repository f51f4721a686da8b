/** The IP functions between two kernels, and what these, their programs and tshark make of them. */

import { deepEqual, equal, match, ok } from "node:assert/strict";
import { command, link, type Namespace, openNamespace, systemTest } from "../kit/system.ts";
import {
  Capture,
  CROSSING,
  Crossing,
  endCaptures,
  iperf,
  judge,
  ping,
  protocolCounter,
  type Running,
  startModule,
} from "../kit/traffic.ts";
import { ROUTER } from "./ip_functions_scenarios.ts";

const NEEDS = { programs: ["ip", "ping", "tcpdump", "tshark", "sysctl"] };
const OURS = "net 10.0.0.0/8 or net fd00::/8";
/** The longest packet that a capture has to show. */
const LONGEST = 65_535;

/** Both versions: ping's flag, and the addresses. */
const FAMILIES = [
  { family: "-4", right: CROSSING.right.ipv4, router: ROUTER.ipv4 },
  { family: "-6", right: CROSSING.right.ipv6, router: ROUTER.ipv6 },
] as const;

/** What the stages counted. */
interface Counts {
  readonly answered: number;
  readonly reassembled: number;
  readonly refused: number;
  readonly timedOut: number;
  readonly learned: number;
  readonly ignored: number;
}

/** A crossing with a scenario's stages in its middle. */
class Stages implements AsyncDisposable {
  readonly crossing: Crossing;
  readonly #running: Running;

  private constructor(crossing: Crossing, running: Running) {
    this.crossing = crossing;
    this.#running = running;
  }

  static async open(scenario: string): Promise<Stages> {
    await using undo = new AsyncDisposableStack();
    const crossing = undo.use(await Crossing.open());
    const module = new URL("ip_functions_scenarios.ts", import.meta.url);
    const running = undo.use(await startModule(crossing.middle, module, [scenario], ["--allow-ffi"]));
    await crossing.route();
    for (const [namespace, address] of [[crossing.left, "fd01::2"], [crossing.right, "fd02::2"]] as const) {
      await ping(namespace, "-c", "1", "-w", "5", address);
    }
    undo.move();
    return new Stages(crossing, running);
  }

  /** Ends the script; what its stages counted. */
  async stop(): Promise<Counts> {
    const { code, heard } = await this.#running.stop();
    equal(code, 0, heard);
    return JSON.parse(/^\{.*\}$/m.exec(heard)![0]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running[Symbol.asyncDispose]();
    await this.crossing[Symbol.asyncDispose]();
  }
}

/** That so many pings are answered, each once and in order, with the bytes that they had. */
async function assertAnswered(namespace: Namespace, count: number, ...args: string[]): Promise<void> {
  const { answered, odd } = await ping(namespace, "-c", String(count), "-w", "10", "-i", "0.01", ...args);
  const wanted = Array.from({ length: Math.max(count, answered.length) }, (_, i) => i + 1);
  deepEqual({ answered, odd }, { answered: wanted, odd: [] }, `ping ${args.join(" ")}`);
}

/** That tshark finds nothing wrong with any packet. */
async function assertFaultless({ device, packets, file }: Capture): Promise<void> {
  const { packets: found, faults } = await judge(file);
  // It takes the bytes of a segment that an error quotes for all that the segment has.
  const real = faults.filter((fault) =>
    !/^\d+: bad tcp checksum: (Destination unreach|Packet Too)/.test(fault)
  );
  deepEqual({ found, real }, { found: packets.length, real: [] }, `${device}: ${real[0]}`);
}

/** One of tshark's fields, of the packets that have it. */
async function fieldOf(capture: Capture, field: string): Promise<string[]> {
  const path = await Deno.makeTempFile({ suffix: ".pcap" });
  try {
    await Deno.writeFile(path, capture.file.stream());
    const { stdout } = await command("tshark", ["-r", path, "-n", "-T", "fields", "-e", field]);
    return stdout.split("\n").filter((line) => line !== "");
  } finally {
    await Deno.remove(path);
  }
}

systemTest("What fragment() divides, the kernel joins", NEEDS, async () => {
  await using stages = await Stages.open("fragment");
  const { left, middle, right } = stages.crossing;
  await using capture = await Capture.open(middle, "right", OURS, LONGEST);
  const before = await protocolCounter(right, "IpReasmOKs");
  for (const { family, right: destination } of FAMILIES) {
    for (const size of ["572", "573", "1400"]) {
      await assertAnswered(left, 20, family, "-M", "dont", "-s", size, destination);
    }
    // What forbids it, too, when it is told to.
    await assertAnswered(left, 20, family, "-M", "do", "-s", "1400", destination);
  }
  ok(await protocolCounter(right, "IpReasmOKs") - before >= 3 * 20);
  await endCaptures(left, CROSSING.right.ipv4, [capture]);
  await assertFaultless(capture);
  const fromLeft = capture.packets.filter((packet) => packet[packet[0]! >> 4 === 4 ? 13 : 9] === 1);
  ok(fromLeft.length > 0 && fromLeft.every(({ length }) => length <= 600));
});

systemTest("What the kernel divides, Reassemble joins", NEEDS, async () => {
  await using stages = await Stages.open("reassemble");
  const { left, middle } = stages.crossing;
  await using one = await Capture.open(middle, "left", OURS, LONGEST);
  await using other = await Capture.open(middle, "right", OURS, LONGEST);
  for (const { family, right } of FAMILIES) {
    for (const size of ["1460", "4000", "20000"]) {
      await assertAnswered(left, 20, family, "-M", "dont", "-s", size, right);
    }
    await assertAnswered(left, 20, family, "-s", "56", right);
  }
  await endCaptures(left, CROSSING.right.ipv4, [one, other]);
  await assertFaultless(one);
  await assertFaultless(other);
  const { reassembled, refused, timedOut } = await stages.stop();
  deepEqual([refused, timedOut], [0, 0]);
  // Those of 1460 bytes over IPv4 fit one packet.
  ok(reassembled >= 2 * 5 * 20, `${reassembled}`);
});

systemTest("traceroute shows ttl() as a router", {
  programs: [...NEEDS.programs, "traceroute"],
}, async () => {
  await using stages = await Stages.open("ttl");
  const { left, middle } = stages.crossing;
  await using capture = await Capture.open(middle, "left", OURS);
  for (const { family, right, router } of FAMILIES) {
    const { stdout } = await left.command("traceroute", [family, "-n", "-q", "1", "-w", "5", right]);
    const hops = Array.from(stdout.matchAll(/^ *\d+ +(\S+)/gm), ([, hop]) => hop);
    equal(hops[1], router, stdout);
    equal(hops[3], right, stdout);
    await assertAnswered(left, 5, family, right);
    const { stdout: said } = await left.command("ping", [family, "-n", "-c", "1", "-t", "2", right], {
      check: false,
    });
    match(said, new RegExp(`^From ${router}.*(Time to live|Hop limit)`, "m"));
  }
  await endCaptures(left, CROSSING.right.ipv4, [capture]);
  await assertFaultless(capture);
  ok((await stages.stop()).answered >= 4);
});

/** What the kernel has learned of a path. */
async function learnedMtu(namespace: Namespace, family: string, destination: string): Promise<string> {
  const { stdout } = await namespace.command("ip", [family, "route", "get", destination]);
  return /\bmtu (\d+)/.exec(stdout)?.[1] ?? stdout;
}

systemTest("ping, tracepath and the kernel learn a tunnel's MTU from PathMtu, and TCP goes on", {
  programs: [...NEEDS.programs, "iperf3", "tracepath"],
}, async () => {
  await using stages = await Stages.open("mtu");
  const { left, middle } = stages.crossing;
  await using capture = await Capture.open(middle, "left", `(${OURS}) and (icmp or icmp6)`);
  for (const { family, right, router } of FAMILIES) {
    const header = family === "-4" ? 28 : 48;
    const { stdout } = await left.command(
      "ping",
      [family, "-n", "-M", "do", "-c", "1", "-W", "5", "-s", String(1301 - header), right],
      { check: false },
    );
    match(stdout, new RegExp(`^From ${router}.*(Frag needed and DF set|Packet too big).*mtu ?= ?1300`, "m"));
    equal(await learnedMtu(left, family, right), "1300");
    await assertAnswered(left, 5, family, "-M", "do", "-s", String(1300 - header), right);
    await left.command("ip", [family, "route", "flush", "cache"]);
    const { stdout: path } = await left.command("tracepath", [family, "-n", "-m", "5", right]);
    match(path, /Resume: pmtu 1300\b/);
    await left.command("ip", [family, "route", "flush", "cache"]);
    // Super-packets are answered by an error about their first segment.
    const { end } = await iperf(left, stages.crossing.right, right, "-t", "1");
    ok(end.sum_received.bytes >= 10_000_000, `${end.sum_received.bytes} bytes`);
    equal(await learnedMtu(left, family, right), "1300");
  }
  await endCaptures(left, CROSSING.right.ipv4, [capture]);
  await assertFaultless(capture);
});

systemTest("PathMtu learns from a kernel's error, and tells the next sender itself", NEEDS, async () => {
  await using stages = await Stages.open("learn");
  const { left, middle, right } = stages.crossing;
  await using beyond = await openNamespace();
  await right.command("sysctl", ["-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]);
  await link(
    { namespace: right, name: "narrow", addresses: ["10.3.0.2/24", "fd03::2/64"] },
    { namespace: beyond, name: "narrow", addresses: ["10.3.0.1/24", "fd03::1/64"] },
  );
  for (const namespace of [right, beyond]) {
    await namespace.command("ip", ["link", "set", "narrow", "mtu", "1290"]);
  }
  const routes = [
    { family: "-4", far: "10.3.0.0/24", left: "10.1.0.2", middle: "10.2.0.1", beyond: "10.3.0.2" },
    { family: "-6", far: "fd03::/64", left: "fd01::2", middle: "fd02::1", beyond: "fd03::2" },
  ] as const;
  for (const { family, far, ...via } of routes) {
    await left.command("ip", [family, "route", "add", far, "via", via.left]);
    await middle.command("ip", [family, "route", "add", far, "via", via.middle]);
    await beyond.command("ip", [family, "route", "add", "default", "via", via.beyond]);
  }
  for (
    const { family, destination, narrow, router } of [
      { family: "-4", destination: "10.3.0.1", narrow: "10.2.0.1", router: ROUTER.ipv4 },
      { family: "-6", destination: "fd03::1", narrow: "fd02::1", router: ROUTER.ipv6 },
    ]
  ) {
    for (const teller of [narrow, router]) {
      const args = [family, "-n", "-M", "do", "-c", "1", "-W", "5", "-s", "1400", destination];
      const { stdout } = await left.command("ping", args, { check: false });
      match(stdout, new RegExp(`^From ${teller}.*mtu ?= ?1290`, "m"));
      await left.command("ip", [family, "route", "flush", "cache"]);
    }
  }
  const { learned, ignored, answered } = await stages.stop();
  deepEqual([learned, ignored, answered], [2, 0, 2]);
});

systemTest("mssClamp() lowers what both kernels offer", {
  programs: [...NEEDS.programs, "iperf3"],
}, async () => {
  await using stages = await Stages.open("clamp");
  const { left, middle, right } = stages.crossing;
  await using one = await Capture.open(middle, "left", OURS);
  await using other = await Capture.open(middle, "right", OURS);
  for (const { right: destination } of FAMILIES) await iperf(left, right, destination, "-n", "100K");
  await endCaptures(left, CROSSING.right.ipv4, [one, other]);
  await assertFaultless(one);
  await assertFaultless(other);
  const before = ["1440", "1460"];
  const behind = ["1240", "1260"];
  // Each device shows what goes in as it is, and what comes out clamped.
  for (const capture of [one, other]) {
    const offers = new Set(await fieldOf(capture, "tcp.options.mss_val"));
    deepEqual([...offers].sort(), [...behind, ...before]);
  }
});

systemTest("Programs hear at once that they are refused", {
  programs: [...NEEDS.programs, "curl"],
}, async () => {
  await using stages = await Stages.open("refuse");
  const { left, middle } = stages.crossing;
  await using capture = await Capture.open(middle, "left", OURS);
  for (const { family, right, router } of FAMILIES) {
    const host = family === "-4" ? right : `[${right}]`;
    const { code, stderr } = await left.command(
      "curl",
      ["-sS", "-g", "--connect-timeout", "20", `http://${host}:8080/`],
      { check: false },
    );
    equal(code, 7);
    match(stderr, /Connection refused|Couldn't connect/);
    const { stdout } = await left.command("ping", [family, "-n", "-c", "1", "-W", "5", right], {
      check: false,
    });
    match(stdout, new RegExp(`^From ${router}.*(Packet filtered|Administratively prohibited)`, "m"));
  }
  equal((await stages.stop()).answered, 4);
  await capture.until(0, (packet) => packet[0]! >> 4 === 6 && packet[6] === 58 && packet[40] === 1);
  await assertFaultless(capture);
});
