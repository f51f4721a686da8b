/**
 * Where a relay works: a network namespace with two TUN devices, between which the kernel talks to itself.
 *
 *     iperf3, ping ──► 10.1.0.1 on ta ──► relay ──► tb on 10.2.0.1 ──► iperf3, ping
 *
 * Both addresses are the same kernel's, which would deliver between them without any device. Rules of policy
 * routing send what goes from one address to the other out through the device, and let what came in through a
 * device be delivered. So the relay's process creates its devices as it likes and they stay where they are: no
 * forwarding and no second pair of devices (veth) adds to what is measured.
 */

import { type CommandResult, type Namespace, openNamespace } from "../kit/system.ts";
import { type DeviceCounters, deviceCounters, processorTime } from "./measure.ts";
import { delay } from "./wait.ts";

/** The relay's devices. */
export const DEVICES = ["ta", "tb"] as const;
const ADDRESSES = ["10.1.0.1", "10.2.0.1"] as const;

// Implementation
const MTU = 1500;
const QUEUE_LENGTH = 1000;
const TABLES = [101, 102] as const;
const LOCAL_TABLE_PRIORITY = 100;
const START_MILLISECONDS = 15_000;
const LOOK_MILLISECONDS = 20;
/** 5201, iperf3's port, as /proc/net/tcp writes a socket that listens (state 0A). */
const LISTENING = /:1451 0+:0000 0A/;

/** A program that relays between {@linkcode DEVICES}. */
export interface RelayProgram {
  readonly program: string;
  readonly args: readonly string[];
}

/** What a relay had done at a moment. */
export interface Progress {
  /** When (milliseconds). */
  readonly time: number;
  /** The processor time of its process (nanoseconds). */
  readonly processor: number;
  /** Packets that it has moved, by the kernel's counters. */
  readonly packets: number;
}

/** A relay at work in its namespace. Disposing of it ends everything and removes the namespace. */
export class Crossing implements AsyncDisposable {
  readonly #namespace: Namespace;
  readonly #relay: Deno.ChildProcess;
  readonly #signal: AbortSignal;

  private constructor(namespace: Namespace, relay: Deno.ChildProcess, signal: AbortSignal) {
    this.#namespace = namespace;
    this.#relay = relay;
    this.#signal = signal;
  }

  /**
   * Starts a relay, and the server of iperf3 behind it.
   *
   * @throws {Error} when the relay ends or has no devices after 15 s, with what it wrote.
   */
  static async open({ program, args }: RelayProgram, signal: AbortSignal): Promise<Crossing> {
    signal.throwIfAborted();
    await using undo = new AsyncDisposableStack();
    const namespace = undo.use(await openNamespace());
    const relay = namespace.spawn(program, [...args], { stdout: "null" });
    const crossing = new Crossing(namespace, relay, signal);
    await crossing.#until(() => DEVICES.every((device) => crossing.#counters().has(device)), "its devices");
    await crossing.#join();
    const server = namespace.spawn("iperf3", ["-s", "-B", ADDRESSES[1]], { stdout: "null", stderr: "null" });
    await crossing.#until(
      () => LISTENING.test(Deno.readTextFileSync(`/proc/${server.pid}/net/tcp`)),
      "the server of iperf3",
    );
    undo.move();
    return crossing;
  }

  /** What the relay has done until now. */
  progress(): Progress {
    const counters = this.#counters();
    const packets = DEVICES.reduce((sum, device) => sum + counters.get(device)!.received, 0);
    return { time: performance.now(), processor: processorTime(this.#relay.pid), packets };
  }

  /** Runs iperf3 through the relay and returns what it says, parsed. */
  async iperf<Result>(...args: string[]): Promise<Result> {
    const [from, to] = ADDRESSES;
    const { stdout } = await this.#run("iperf3", ["-c", to, "-B", from, "-J", ...args]);
    return JSON.parse(stdout);
  }

  /** Pings through the relay; returns the round-trip times that came back (microseconds). */
  async ping(count: number, intervalSeconds: number): Promise<number[]> {
    const [from, to] = ADDRESSES;
    const { stdout } = await this.#run(
      "ping",
      ["-n", "-I", from, "-c", String(count), "-i", String(intervalSeconds), to],
    );
    return Array.from(stdout.matchAll(/time=([\d.]+) ms/g), ([, time]) => Number(time) * 1000);
  }

  /** Ends the relay and all else, and removes the namespace. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#namespace[Symbol.asyncDispose]();
  }

  #run(program: string, args: string[]): Promise<CommandResult> {
    return this.#namespace.command(program, args, { signal: this.#signal });
  }

  #counters(): Map<string, DeviceCounters> {
    return deviceCounters(this.#relay.pid);
  }

  /** Waits for something that the relay's start brings. */
  async #until(condition: () => boolean, what: string): Promise<void> {
    let ended = false;
    this.#relay.status.then(() => ended = true);
    const deadline = performance.now() + START_MILLISECONDS;
    while (!ended && !condition()) {
      if (performance.now() > deadline) throw new Error(`Cannot start the relay: ${what} did not appear`);
      await delay(LOOK_MILLISECONDS, this.#signal);
    }
    if (!ended) return;
    const said = await new Response(this.#relay.stderr).text();
    throw new Error(`Cannot start the relay: it ended: ${said.trim()}`);
  }

  /** Gives the devices their addresses, and the namespace the rules that send packets through them. */
  async #join(): Promise<void> {
    const ip = (...words: (string | number)[]) => this.#run("ip", words.map(String));
    const settings = ["all", ...DEVICES].map((place) => `net.ipv4.conf.${place}.rp_filter=0`);
    await this.#run("sysctl", ["-qw", ...settings]);
    for (const [i, device] of DEVICES.entries()) {
      const [own, other] = [ADDRESSES[i]!, ADDRESSES[1 - i]!];
      await this.#run("sysctl", ["-qw", `net.ipv4.conf.${device}.accept_local=1`]);
      await ip("link", "set", device, "mtu", MTU, "txqueuelen", QUEUE_LENGTH, "up");
      await ip("address", "add", `${own}/32`, "dev", device);
      await ip("route", "add", other, "dev", device, "table", TABLES[i]!);
      await ip("rule", "add", "priority", 1 + i, "iif", device, "lookup", "local");
      await ip("rule", "add", "priority", 3 + i, "from", own, "to", other, "lookup", TABLES[i]!);
    }
    await ip("rule", "add", "priority", LOCAL_TABLE_PRIORITY, "lookup", "local");
    await ip("rule", "delete", "priority", 0);
  }
}
