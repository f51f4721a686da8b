/**
 * Where a contender works: network namespaces, in which the kernel talks to itself across it.
 *
 *     iperf3, ping ──► 10.1.0.1 on ta ──► relay ──► tb on 10.2.0.1 ──► iperf3, ping        one namespace
 *     iperf3, ping ──► 10.1.0.1 ──► veth ──► router ──► veth ──► 10.2.0.1 ──► iperf3, ping      three
 *
 * With a relay, both addresses are the same kernel's, which would deliver between them without any device. Rules of
 * policy routing send what goes from one address to the other out through the device, and let what came in through
 * a device be delivered. So the relay's process creates its devices as it likes and they stay where they are: no
 * forwarding and no second pair of devices (veth) adds to what is measured.
 *
 * Without one, the kernel forwards between two pairs of veth, super-packets as they are: the limit.
 */

import { type CommandOptions, link, type Namespace, openNamespace } from "../kit/system.ts";
import type { IperfReport } from "../kit/traffic.ts";
import { HeapWatch } from "./heap_watch.ts";
import { handedByDevice, type MemoryPart, processorTime, residentMemory } from "./measure.ts";
import { delay } from "./wait.ts";

/** The relay's devices. */
export const DEVICES = ["ta", "tb"] as const;
const ADDRESSES = ["10.1.0.1", "10.2.0.1"] as const;
const ROUTER_ADDRESSES = ["10.1.0.254", "10.2.0.254"] as const;

// Implementation
const MTU = 1500;
const QUEUE_LENGTH = 1000;
const TABLES = [101, 102] as const;
const LOCAL_TABLE_PRIORITY = 100;
/** Many start at once. */
const START_MILLISECONDS = 30_000;
const LOOK_MILLISECONDS = 20;
/** 5201, iperf3's port, as /proc/net/tcp writes a socket that listens (state 0A). */
const LISTENING = /:1451 0+:0000 0A/;

/** iperf3's server closes its listening socket behind each test: who connects just then is turned away. */
const BETWEEN_TESTS = /unable to connect to server|server is busy/;
const IPERF_ATTEMPTS = 10;

/** A program that relays between {@linkcode DEVICES}. */
export interface RelayProgram {
  readonly program: string;
  readonly args: readonly string[];
  /** Whether it is watched by {@linkcode HeapWatch}. @default {false} */
  readonly watched?: boolean;
}

/** What a relay had done at a moment. */
export interface Progress {
  /** When (milliseconds). */
  readonly time: number;
  /** The processor time of its process (nanoseconds). */
  readonly processor: number;
  /**
   * Packets that the kernel has handed it, by the kernel's counters; a super-packet is one. Not those that the kernel
   * got: a relay may write several as one.
   */
  readonly packets: number;
  /** Their bytes. */
  readonly bytes: number;
}

/** A contender at its place. Disposing of it ends everything and removes the namespaces. */
export class Crossing implements AsyncDisposable {
  /** The heap of a relay that is watched. */
  readonly heap: HeapWatch | undefined;
  readonly #client: Namespace;
  readonly #relay: Deno.ChildProcess | undefined;
  readonly #signal: AbortSignal;
  readonly #ended = new AbortController();
  #namespaces = new AsyncDisposableStack();

  private constructor(client: Namespace, relay: RelayProgram | undefined, signal: AbortSignal) {
    this.#client = client;
    // What runs through a relay that has ended would wait for minutes.
    this.#signal = AbortSignal.any([signal, this.#ended.signal]);
    if (relay === undefined) return;
    const { program, args, watched = false } = relay;
    this.#relay = client.spawn(program, [...args], { stdout: watched ? "piped" : "null" });
    this.#relay.status.then(() => this.#ended.abort(new Error("The relay ended")));
    if (watched) this.heap = new HeapWatch(this.#relay);
  }

  /**
   * Starts a relay, and the server of iperf3 behind it.
   *
   * @throws {Error} when the relay ends, or has no devices after 30 s, with what it wrote.
   */
  static async open(relay: RelayProgram, signal: AbortSignal): Promise<Crossing> {
    signal.throwIfAborted();
    await using undo = new AsyncDisposableStack();
    const namespace = undo.use(await openNamespace());
    const crossing = new Crossing(namespace, relay, signal);
    await crossing.#alive(async () => {
      await crossing.#until(() => crossing.#hasDevices, "its devices");
      await crossing.#join();
      await crossing.#serve(namespace);
    });
    crossing.#namespaces = undo.move();
    return crossing;
  }

  /** Has the kernel forward, without a relay. */
  static async openVeth(signal: AbortSignal): Promise<Crossing> {
    signal.throwIfAborted();
    await using undo = new AsyncDisposableStack();
    const router = undo.use(await openNamespace());
    const hosts = [undo.use(await openNamespace()), undo.use(await openNamespace())] as const;
    await router.command("sysctl", ["-qw", "net.ipv4.ip_forward=1"]);
    for (const [i, namespace] of hosts.entries()) {
      const gateway = ROUTER_ADDRESSES[i]!;
      await link(
        { namespace, name: "out", addresses: [`${ADDRESSES[i]}/24`] },
        { namespace: router, name: `host${i}`, addresses: [`${gateway}/24`] },
      );
      await namespace.command("ip", ["route", "add", "default", "via", gateway]);
    }
    const crossing = new Crossing(hosts[0], undefined, signal);
    await crossing.#serve(hosts[1]);
    crossing.#namespaces = undo.move();
    return crossing;
  }

  /** What the relay has done until now; `undefined` without one. */
  progress(): Progress | undefined {
    if (this.#relay === undefined) return undefined;
    const processor = processorTime(this.#relay.pid);
    const devices = handedByDevice(this.#relay.pid);
    const handed = DEVICES.map((device) => devices.get(device)!);
    return {
      time: performance.now(),
      processor,
      packets: handed.reduce((sum, { packets }) => sum + packets, 0),
      bytes: handed.reduce((sum, { bytes }) => sum + bytes, 0),
    };
  }

  /** The relay's resident memory, or of a part of its memory (bytes); `NaN` without one. */
  residentMemory(part?: MemoryPart): number {
    return this.#relay === undefined ? NaN : residentMemory(this.#relay.pid, part);
  }

  /**
   * Runs iperf3 from one address to the other and returns what it says, parsed.
   *
   * @throws {Error} with what it says, when it fails.
   */
  iperf(...args: string[]): Promise<IperfReport> {
    const [from, to] = ADDRESSES;
    return this.#alive(async () => {
      for (let attempt = 1;; attempt++) {
        const text = await this.#run("iperf3", ["-c", to, "-B", from, "-J", ...args], { check: false });
        const result = text === "" ? { error: "it was killed" } : JSON.parse(text);
        if (result.error === undefined) return result;
        if (attempt === IPERF_ATTEMPTS || !BETWEEN_TESTS.test(result.error)) {
          throw new Error(`Cannot run iperf3: ${result.error}`);
        }
        await delay(LOOK_MILLISECONDS * attempt, this.#signal);
      }
    });
  }

  /** Pings from one address to the other; returns the round-trip times that came back (microseconds). */
  async ping(count: number, intervalSeconds: number): Promise<number[]> {
    const [from, to] = ADDRESSES;
    const words = ["-n", "-I", from, "-c", String(count), "-i", String(intervalSeconds), to];
    const text = await this.#alive(() => this.#run("ping", words));
    return Array.from(text.matchAll(/time=([\d.]+) ms/g), ([, time]) => Number(time) * 1000);
  }

  /** Ends the relay and all else, and removes the namespaces. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#namespaces.disposeAsync();
  }

  get #hasDevices(): boolean {
    const devices = handedByDevice(this.#relay!.pid);
    return DEVICES.every((device) => devices.has(device));
  }

  /** Runs a program where packets start; returns what it wrote. */
  async #run(program: string, args: string[], options: CommandOptions = {}): Promise<string> {
    return (await this.#client.command(program, args, { ...options, signal: this.#signal })).stdout;
  }

  /** Does what needs the relay. When that ends, what it wrote is why it fails. */
  async #alive<Result>(action: () => Promise<Result>): Promise<Result> {
    try {
      return await action();
    } catch (error) {
      if (!this.#ended.signal.aborted) throw error;
      const { stderr, status } = this.#relay!;
      const words = (await new Response(stderr).text()).trim();
      throw new Error(`it ended: ${words === "" ? `code ${(await status).code}` : words}`);
    }
  }

  /** Waits for something that the start brings. */
  async #until(condition: () => boolean, what: string): Promise<void> {
    const deadline = performance.now() + START_MILLISECONDS;
    while (!condition()) {
      if (performance.now() > deadline) throw new Error(`Cannot start: ${what} did not appear`);
      await delay(LOOK_MILLISECONDS, this.#signal);
    }
  }

  /** Gives the devices their addresses, and the namespace the rules that send packets through them. */
  async #join(): Promise<void> {
    const open = DEVICES.map((device) => `net.ipv4.conf.${device}.accept_local=1`);
    const settings = ["all", ...DEVICES].map((place) => `net.ipv4.conf.${place}.rp_filter=0`);
    await this.#run("sysctl", ["-qw", ...open, ...settings]);
    const lines = DEVICES.flatMap((device, i) => {
      const [own, other, table] = [ADDRESSES[i]!, ADDRESSES[1 - i]!, TABLES[i]!];
      return [
        `link set ${device} mtu ${MTU} txqueuelen ${QUEUE_LENGTH} up`,
        `address add ${own}/32 dev ${device}`,
        `route add ${other} dev ${device} table ${table}`,
        `rule add priority ${1 + i} iif ${device} lookup local`,
        `rule add priority ${3 + i} from ${own} to ${other} lookup ${table}`,
      ];
    });
    lines.push(`rule add priority ${LOCAL_TABLE_PRIORITY} lookup local`, "rule delete priority 0");
    await this.#run("ip", ["-batch", "-"], { stdin: lines.join("\n") });
  }

  /** Starts the server of iperf3. */
  async #serve(namespace: Namespace): Promise<void> {
    const server = namespace.spawn("iperf3", ["-s", "-B", ADDRESSES[1]], { stdout: "null", stderr: "null" });
    const listens = () => LISTENING.test(Deno.readTextFileSync(`/proc/${server.pid}/net/tcp`));
    await this.#until(listens, "the server of iperf3");
  }
}
