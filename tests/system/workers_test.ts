/** Scripts in several workers, a queue of their devices each: order, counters, ends, hand-over. */

import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";
import type { TunnelStats } from "../../lib/core/mod.ts";
import { openTunnel } from "../../runtime/mod.ts";
import { type Namespace, openNamespace, runModule, systemTest } from "../kit/system.ts";
import {
  CROSSING,
  Crossing,
  firstAnswer,
  iperf,
  type KernelCounters,
  kernelCounters,
  ping,
  Running,
} from "../kit/traffic.ts";
import { COUNT, FLOWS, type Seen } from "./workers_scenario.ts";

const SOCKETS = ["--allow-net", "--unstable-net"];
const NEEDS = { programs: ["ip", "ping", "sysctl"] };
const SCENARIO = new URL("./workers_scenario.ts", import.meta.url);
const SETTINGS = fileURLToPath(new URL("../../deno.json", import.meta.url));
/** What both devices of a crossing are joined by. */
function relay(linux: string): string {
  return `{ name: "left", far: device({ name: "right", linux: ${linux} }), linux: ${linux} }`;
}
/** Has each worker say what it counted. */
const TELL = `console.log("worker", tunnel.worker.index, JSON.stringify(tunnel.stats));`;
const RUN = `const run = tunnel.run(); console.log("ready"); await run; ${TELL}`;
/** Has the second worker be slow, so that the first one would overtake it if they shared a flow. */
const STALL = `const stall = () => { for (const end = performance.now() + 8; performance.now() < end;); };
if (tunnel.worker.index === 1) tunnel.use({ name: "stall", outbound: stall, inbound: stall });`;
/** A worker that has nothing to do but to be there. */
const WAIT = `console.log("ready"); await tunnel.run(() => Verdict.Drop);`;

/** A script, as a program of its own. */
class Program implements AsyncDisposable {
  readonly #running: Running;
  readonly #folder: string;

  private constructor(running: Running, folder: string) {
    this.#running = running;
    this.#folder = folder;
  }

  /** Starts a script whose `main` has this body. */
  static async start(
    namespace: Namespace,
    options: string,
    body: string,
    flags: readonly string[] = ["--workers", "2"],
    permissions: readonly string[] = ["--allow-ffi"],
  ): Promise<Program> {
    const folder = await Deno.makeTempDir({ prefix: "warren-workers-" });
    const path = `${folder}/test.ts`;
    await Deno.writeTextFile(
      path,
      `import { device, Direction, script, type Stage, Verdict } from "@warren/tunnel";
      import { Ipv4 } from "@warren/tunnel/ipv4";
      import { Udp } from "@warren/tunnel/udp";
      export default script(import.meta, ${options}, async (tunnel) => { ${body} });
      void [device, Direction, Verdict, Ipv4, Udp]; export type _ = Stage;`,
    );
    const args = ["run", "--quiet", "--no-prompt", ...permissions, "--config", SETTINGS, path, ...flags];
    const child = namespace.spawn(Deno.execPath(), args);
    return new Program(new Running(child, child.stdout, child.stderr), folder);
  }

  /** Everything it said. */
  get heard(): string {
    return this.#running.heard;
  }

  /** Waits until so many workers have said that they are ready. */
  async ready(workers = 2): Promise<void> {
    await this.#running.said(new RegExp(`(^ready$[^]*){${workers}}`, "m"));
  }

  async said(pattern: RegExp): Promise<void> {
    await this.#running.said(pattern);
  }

  signal(signal: Deno.Signal): void {
    this.#running.signal(signal);
  }

  async ended(): Promise<{ code: number; heard: string }> {
    return await this.#running.ended();
  }

  /** Ends it by Ctrl-C; returns what its workers counted, which for the first one is all. */
  async stop(): Promise<TunnelStats[]> {
    const { code, heard } = await this.#running.stop("SIGINT");
    assert.equal(code, 0, heard);
    const told: TunnelStats[] = [];
    for (const [, index, stats] of heard.matchAll(/^worker (\d+) (.*)$/gm)) {
      told[Number(index)] = JSON.parse(stats!);
    }
    return told;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running[Symbol.asyncDispose]();
    await Deno.remove(this.#folder, { recursive: true });
  }
}

function lost({ dropped }: TunnelStats): number {
  return Object.values(dropped).reduce((sum, count) => sum + count, 0);
}

function assertBalanced(stats: TunnelStats): void {
  const { outbound, inbound, created, queued } = stats;
  assert.equal(
    outbound.packetsIn + inbound.packetsIn + created,
    outbound.packetsOut + inbound.packetsOut + lost(stats) + queued,
    JSON.stringify(stats),
  );
}

/** The kernel's counters of both devices, when nothing passes any more. */
async function restingCounters(middle: Namespace): Promise<[left: KernelCounters, right: KernelCounters]> {
  const look = async (): Promise<[KernelCounters, KernelCounters]> => [
    await kernelCounters(middle, "left"),
    await kernelCounters(middle, "right"),
  ];
  for (let before = await look();;) {
    await new Promise((resolve) => setTimeout(resolve, 300));
    const now = await look();
    if (JSON.stringify(now) === JSON.stringify(before)) return now;
    before = now;
  }
}

/** Ends a relay; returns what its workers counted, of which everything has passed. */
async function count(program: Program): Promise<[all: TunnelStats, second: TunnelStats]> {
  const [all, second] = await program.stop();
  [all!, second!].forEach(assertBalanced);
  assert.deepEqual([all!.queued, lost(all!)], [0, 0], JSON.stringify(all));
  return [all!, second!];
}

/** A relay between two namespaces; the devices have no IPv6, whose own packets come when they like. */
async function openRelay(linux = "{}", body = ""): Promise<{ crossing: Crossing; program: Program }> {
  await using undo = new AsyncDisposableStack();
  const crossing = undo.use(await Crossing.open());
  await crossing.middle.command("sysctl", ["-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
  const program = undo.use(await Program.start(crossing.middle, relay(linux), `${body} ${RUN}`));
  await program.ready();
  await crossing.route(["-4"]);
  undo.move();
  return { crossing, program };
}

/** Has many flows pass a relay, some of them after a pause; returns what both sides saw. */
async function passFlows(
  { left, right }: Crossing,
  idle: number,
): Promise<{ received: Seen; answered: Seen }> {
  const words = ["run", "--quiet", "--no-prompt", ...SOCKETS, fileURLToPath(SCENARIO), "receive"];
  const child = right.spawn(Deno.execPath(), words);
  await using receiver = new Running(child, child.stdout, child.stderr);
  await receiver.said(/^ready$/m);
  const sending = ["send", String(idle), CROSSING.right.ipv4];
  const answered = await runModule<Seen>(left, SCENARIO, sending, SOCKETS);
  const { heard } = await receiver.stop();
  return { received: JSON.parse(/^received (.*)$/m.exec(heard)![1]!), answered };
}

systemTest(
  "--workers 2 keeps the order of every flow, idle for 10 s or not, and sums its counters",
  NEEDS,
  async () => {
    const { crossing, program } = await openRelay("{}", STALL);
    await using _crossing = crossing;
    await using _program = program;
    // The kernel forgets after three seconds which queue a flow's packets were written to.
    const { received, answered } = await passFlows(crossing, 10_000);
    assert.deepEqual([received.faults, answered.faults], [[], []]);
    assert.deepEqual([received.flows, answered.flows], [FLOWS, FLOWS]);
    assert.ok(received.came > FLOWS * COUNT / 2, `${received.came} came`);
    assert.ok(answered.came > FLOWS * COUNT / 2, `${answered.came} answers`);
    const [all, second] = await count(program);
    for (const direction of ["outbound", "inbound"] as const) {
      const part = second[direction].packetsIn / all[direction].packetsIn;
      assert.ok(part > 0.1 && part < 0.9, `${direction}: ${part} of the packets in the second worker`);
    }
  },
);

for (const linux of ["{}", "{ offload: false }", "{ uring: false, offload: false }"]) {
  systemTest(
    `--workers 2 with ${linux} carries eight TCP streams by both workers, and counts them`,
    { programs: [...NEEDS.programs, "iperf3"] },
    async () => {
      const { crossing, program } = await openRelay(linux);
      await using _crossing = crossing;
      await using _program = program;
      const { left, middle, right } = crossing;
      await firstAnswer(left, CROSSING.right.ipv4);
      const { end } = await iperf(left, right, CROSSING.right.ipv4, "-P", "8", "-n", "64M");
      // What is under way when the client has sent its share, the server no longer counts.
      assert.ok(end.sum_received.bytes >= 32 << 20, `${end.sum_received.bytes} bytes`);
      const [device, far] = await restingCounters(middle);
      const [{ outbound, inbound }, second] = await count(program);
      assert.ok(second.outbound.packetsIn > 0 && second.inbound.packetsIn > 0);
      assert.deepEqual([outbound.packetsIn, outbound.bytesIn], [device.tx.packets, device.tx.bytes]);
      assert.deepEqual([inbound.packetsIn, inbound.bytesIn], [far.tx.packets, far.tx.bytes]);
      // With offload, what is written is coalesced, which the tunnel does not count.
      if (!linux.includes("offload: false")) return;
      assert.deepEqual([outbound.packetsOut, outbound.bytesOut], [far.rx.packets, far.rx.bytes]);
      assert.deepEqual([inbound.packetsOut, inbound.bytesOut], [device.rx.packets, device.rx.bytes]);
    },
  );
}

systemTest("--workers 3 of a script without a far end answers all that is sent", NEEDS, async () => {
  await using namespace = await openNamespace();
  const body = `const run = tunnel.run((packet) => {
    const ip = Ipv4.of(packet);
    if (ip === undefined || packet.bytes[ip.payloadOffset] !== 8) return Verdict.Drop;
    packet.bytes[ip.payloadOffset] = 0;
    packet.view.setUint16(ip.payloadOffset + 2, packet.view.getUint16(ip.payloadOffset + 2) + 0x0800);
    ip.swap();
    return Verdict.Reply;
  }); console.log("ready"); await run; ${TELL}`;
  await using program = await Program.start(namespace, `{ address: "10.9.0.1/24" }`, body, [
    "--workers",
    "3",
  ]);
  await program.ready(3);
  let requests = 0;
  for (let host = 2; host < 12; host++) {
    const { sent, answered, odd } = await ping(
      namespace,
      "-c",
      "3",
      "-i",
      "0.05",
      "-w",
      "5",
      `10.9.0.${host}`,
    );
    assert.deepEqual({ answered: answered.slice(0, 3), odd }, { answered: [1, 2, 3], odd: [] });
    // A late answer has ping send one request more.
    requests += sent;
  }
  const [all, ...others] = await program.stop();
  assert.equal(others.length, 2);
  assert.equal(all!.inbound.packetsOut, requests);
  [all!, ...others].forEach(assertBalanced);
});

systemTest(
  "Ctrl-C, SIGTERM, close() and the end of main in any worker end all, and put rules back",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    const options = `{ name: "tun7", address: "10.9.0.1/24", rule: { table: 77, from: "10.9.0.0/24" } }`;
    const before = (await namespace.ip("rule")).length;
    const soon = (what: string) => `setTimeout(() => { ${what} }, 100);`;
    const ways: [body: string, code: number, signal?: Deno.Signal][] = [
      [WAIT, 0, "SIGINT"],
      [WAIT, 0, "SIGTERM"],
      [`if (tunnel.worker.index === 1) ${soon("tunnel.close()")} ${WAIT}`, 0],
      [`if (tunnel.worker.index === 0) ${soon("tunnel.close()")} ${WAIT}`, 0],
      [`console.log("ready"); if (tunnel.worker.index === 0) return tunnel.run();`, 0],
      [`if (tunnel.worker.index === 1) ${soon("Deno.exit(7)")} ${WAIT}`, 7],
      [`if (tunnel.worker.index === 0) ${soon("Deno.exit(7)")} ${WAIT}`, 7],
    ];
    for (const [body, code, signal] of ways) {
      await using program = await Program.start(namespace, options, body, ["--quiet", "--workers", "2"]);
      await program.ready();
      if (signal !== undefined) program.signal(signal);
      const ended = await program.ended();
      assert.deepEqual([ended.code, ended.heard], [code, "ready\nready\n"], body);
      assert.equal((await namespace.ip("rule")).length, before, body);
      assert.equal((await namespace.ip("link")).length, 1, body);
    }
  },
);

systemTest(
  "Ctrl-C while another worker still loads the script ends all at once; a long load is told",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    for (const load of ["await new Promise(() => {});", "for (;;);"]) {
      const options =
        `await (async () => { if (self.name) { console.log("loading"); ${load} } return { name: "tun7" }; })()`;
      await using program = await Program.start(namespace, options, `console.log("main"); ${WAIT}`);
      await program.said(/^loading$/m);
      if (load === "for (;;);") {
        await program.said(/^Worker 1 is still loading the script\. Press Ctrl-C to stop\.$/m);
      }
      const start = performance.now();
      program.signal("SIGINT");
      const { code, heard } = await program.ended();
      assert.equal(code, 0, heard);
      assert.ok(performance.now() - start < 3000, heard);
      assert.ok(!heard.includes("main"), heard);
      assert.equal((await namespace.ip("link")).length, 1);
    }
  },
);

systemTest(
  "What a script posts in a worker is its own, and its close() ends it as Deno.exit() does",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    const worker = (what: string) => `if (tunnel.worker.index === 1) { ${what} }`;
    const post = worker(`for (const value of [null, { kind: "closed" }]) (self as any).postMessage(value);`);
    await using program = await Program.start(namespace, `{ name: "tun7" }`, post + WAIT, [
      "--quiet",
      "--workers",
      "2",
    ]);
    await program.ready();
    program.signal("SIGINT");
    assert.deepEqual(await program.ended(), { code: 0, heard: "ready\nready\n" });
    await using second = await Program.start(namespace, `{ name: "tun7" }`, worker(`self.close();`) + WAIT);
    const { code, heard } = await second.ended();
    assert.equal(code, 0, heard);
  },
);

systemTest("A device of several queues is one program's alone", NEEDS, async () => {
  await using namespace = await openNamespace();
  await using first = await Program.start(namespace, `{ name: "tun7", address: "10.9.0.1/24" }`, WAIT);
  await first.ready();
  const busy = /^warren: Cannot open device "tun7": EBUSY \(16\): another program has this device open$/m;
  for (const options of [`{ name: "tun7", address: "10.9.0.2/24" }`, `{ name: "tun8", far: "tun:tun8" }`]) {
    await using second = await Program.start(namespace, options, WAIT);
    const { code, heard } = await second.ended();
    assert.equal(code, 1, heard);
    assert.match(heard, options.includes("tun7") ? busy : /device "tun8": EBUSY/);
  }
  const [link] = await namespace.ip("-details", "link", "show", "tun7") as [
    { linkinfo: { info_data: { numqueues: number } } },
  ];
  assert.equal(link.linkinfo.info_data.numqueues, 2);
  await first.stop();
});

systemTest("What fails in one worker ends all, with its message and exit code 1", NEEDS, async () => {
  await using namespace = await openNamespace();
  const second = (what: string) => `if (tunnel.worker.index === 1) { ${what} }`;
  const run = `await tunnel.run();`;
  const ways: [body: string, heard: RegExp][] = [
    [
      `if (tunnel.worker.index === 0) throw new Error("no such luck"); ${run}`,
      /^warren: Error: no such luck\n {4}at /,
    ],
    [
      second(`throw new Error("no such luck");`) + run,
      /^warren: Error: no such luck\n {4}at .*\/test\.ts:\d+:\d+/,
    ],
    [
      `tunnel.use({ name: "fragile", tick() { ${second(`throw new Error("broken");`)} return 1000; } });` +
      run,
      /^warren: .*Cannot go on with "tun7" in worker 1: stage "fragile" threw: broken\n {4}at .*\/test\.ts:\d+:\d+/,
    ],
    [
      second(`setTimeout(() => { throw new TypeError("lost"); }, 50);`) + run,
      /Uncaught \(in worker .*TypeError: lost[^]*warren: Cannot go on: worker 1 ended: Uncaught TypeError: lost$/m,
    ],
    [
      second(`setTimeout(() => void Promise.reject(new Error("missed")), 50);`) + run,
      /^warren: Cannot go on: worker 1 ended: Uncaught \(in promise\) Error: missed$/m,
    ],
    [
      second(`tunnel.run(); return;`) + run,
      /^warren: Cannot end the script: main returned while "tun7" is running: /,
    ],
  ];
  for (const [body, pattern] of ways) {
    const flags = ["--quiet", "--workers", "2"];
    await using program = await Program.start(namespace, `{ name: "tun7" }`, body, flags);
    const { code, heard } = await program.ended();
    assert.equal(code, 1, heard);
    assert.match(heard, pattern, body);
    assert.equal(heard.match(/no such luck|broken/g)?.length ?? 1, 1, heard);
    assert.equal((await namespace.ip("link")).length, 1, body);
  }
});

systemTest("A worker whose module throws ends the script before its main is called", NEEDS, async () => {
  await using namespace = await openNamespace();
  const options = `(() => { if (Deno.mainModule !== import.meta.url || self.name) throw new Error("not here");
    return { name: "tun7" }; })()`;
  await using program = await Program.start(namespace, options, `console.log("main"); await tunnel.run();`);
  const { code, heard } = await program.ended();
  assert.equal(code, 1, heard);
  assert.match(heard, /^warren: Error: not here$/m);
  assert.ok(!heard.includes("main\n"), heard);
});

systemTest(
  "A device that is removed fails the script once, whatever the number of workers",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    await using program = await Program.start(namespace, `{ name: "tun7" }`, WAIT);
    await program.ready();
    await namespace.command("ip", ["link", "delete", "tun7"]);
    const { code, heard } = await program.ended();
    assert.equal(code, 1, heard);
    assert.equal(heard.match(/^warren: .*"tun7".*the device was removed$/gm)?.length, 1, heard);
  },
);

systemTest(
  "The watchdog finds a stage that hangs in worker 1, and puts rules back; so does Ctrl-C",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    const before = (await namespace.ip("rule")).length;
    const options = (more: string) =>
      `{ name: "tun7", ${more} address: "10.9.0.1/24", rule: { table: 77, from: "10.9.0.0/24" } }`;
    const body = `tunnel.use({ name: "spin", tick(context) {
    if (context.worker.index === 1 && this.late) for (console.log("spins");;);
    this.late = true;
    // The threads that watch need a moment to start.
    return 1000;
  } } as Stage & { late?: boolean }); ${WAIT}`;
    const ways: [more: string, code: number, heard: RegExp, signal?: Deno.Signal][] = [
      ["watchdog: 400,", 70, /^warren: Cannot go on in worker 1: stage "spin" has not returned for 400 ms/m],
      ["", 130, /^warren: Interrupted while stage "spin" in worker 1 does not return/m, "SIGINT"],
    ];
    for (const [more, code, pattern, signal] of ways) {
      await using program = await Program.start(namespace, options(more), body);
      await program.said(/^spins$/m);
      if (signal !== undefined) program.signal(signal);
      const ended = await program.ended();
      assert.equal(ended.code, code, ended.heard);
      assert.match(ended.heard, pattern);
      assert.equal((await namespace.ip("rule")).length, before);
    }
  },
);

systemTest(
  "context.handOver() gives packets to the worker that they are for, and counts them once",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    // Its router solicitations come when they like.
    await namespace.command("sysctl", ["-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
    // Each worker answers the ports that are its own: the answer's source says which one did, and after how many.
    const body = `tunnel.use({ name: "split", outbound(batch, context) {
    for (const packet of batch) {
      const udp = Udp.of(packet);
      if (udp === undefined) { context.drop(packet, "no UDP"); continue; }
      const owner = udp.srcPort % 2;
      packet.mark++;
      if (owner !== context.worker.index) { context.handOver(packet, owner); continue; }
      udp.ip.swap();
      udp.swapPorts();
      udp.srcPort = 9000 + 10 * context.worker.index + packet.mark;
      context.emit(packet, Direction.Inbound);
    }
  } }); ${RUN}`;
    await using program = await Program.start(namespace, `{ name: "tun7", address: "10.9.0.1/24" }`, body);
    await program.ready();
    const answers = await runModule<[own: number, from: number][]>(
      namespace,
      SCENARIO,
      ["ask", "10.9.0.77"],
      SOCKETS,
    );
    assert.equal(answers.length, FLOWS * 50);
    assert.deepEqual(new Set(answers.map(([own, from]) => from - 9000 - 10 * (own % 2))), new Set([1, 2]));
    const { tx, rx } = await kernelCounters(namespace, "tun7");
    const [all, second] = await program.stop();
    [all!, second!].forEach(assertBalanced);
    assert.equal(all!.queued, 0);
    assert.deepEqual([all!.outbound.packetsIn, all!.outbound.bytesIn], [tx.packets, tx.bytes]);
    assert.deepEqual([all!.inbound.packetsOut, all!.inbound.bytesOut], [rx.packets, rx.bytes]);
    assert.equal(all!.outbound.packetsOut, 0);
    assert.ok(second!.outbound.packetsOut > 0, JSON.stringify(second));
  },
);

systemTest(
  "Far ends of which there is one are refused with --workers 2, before anything is opened",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    const ways: [options: string, message: RegExp][] = [
      [
        `{ far: "udp://192.0.2.1:4500" }`,
        /with far end udp:\/\/192\.0\.2\.1:4500: only a device has queues/,
      ],
      [`{ far: "ws://192.0.2.1:80/" }`, /with far end ws:\/\/192\.0\.2\.1:80\/: only a device has queues/],
      [
        `{ far: device({ linux: { queues: 3 } }) }`,
        /with a far end that has 3: use the same number for both/,
      ],
      [
        `{ tunnels: { a: { linux: { queues: 2 } }, b: { linux: { queues: 3 } } } }`,
        /Cannot run 3 workers: tunnel "a" must have 3 queues, got 2/,
      ],
    ];
    for (const [options, message] of ways) {
      const flags = options.includes("tunnels") ? [] : ["--workers", "2"];
      await using program = await Program.start(namespace, options, `console.log("main", tunnel);`, flags);
      const { code, heard } = await program.ended();
      assert.equal(code, 1, heard);
      assert.match(heard, message);
    }
  },
);

systemTest(
  "A device that was made for one queue is refused for two, and the other way round",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    await namespace.command("ip", ["tuntap", "add", "single", "mode", "tun"]);
    await namespace.command("ip", ["tuntap", "add", "several", "mode", "tun", "multi_queue"]);
    const start = async (name: string, flags: string[]) => {
      await using program = await Program.start(namespace, `{ name: "${name}" }`, WAIT, flags);
      const ended = program.ended();
      const ready = program.ready().then(() => program.signal("SIGINT"), () => {});
      await ready;
      return await ended;
    };
    const single = await start("single", ["--workers", "2"]);
    assert.match(
      single.heard,
      /EINVAL \(22\): it was created without multi_queue: .*`ip tuntap add single mode tun multi_queue`/,
    );
    const several = await start("several", []);
    assert.match(
      several.heard,
      /EINVAL \(22\): it was created with multi_queue: use it with --workers 2, or /,
    );
    assert.equal((await start("several", ["--workers", "2"])).code, 0);
  },
);

systemTest("A program that may read, and has several tunnels, has workers, too", NEEDS, async () => {
  await using namespace = await openNamespace();
  const options = `{ tunnels: { a: { name: "tuna" }, b: { name: "tunb" } } }`;
  const body = `const { a, b } = tunnel; console.log("ready"); await Promise.all([a.run(), b.run()]);`;
  const permissions = ["--allow-ffi", "--allow-read"];
  await using program = await Program.start(namespace, options, body, ["--workers", "2"], permissions);
  await program.ready();
  await program.stop();
});

Deno.test(
  "openTunnel({ linux: { queues: 2 } }) is a TypeError",
  { ignore: Deno.build.os !== "linux" },
  async () => {
    await assert.rejects(
      openTunnel({ linux: { queues: 2 } }),
      /^TypeError: Cannot open a tunnel with 2 queues: .*only the module of a script runs in workers/,
    );
  },
);
