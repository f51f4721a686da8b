/** The demo without privileges: the script's own module over a pair of devices in memory, in this process. */

import { setImmediate } from "node:timers/promises";
import process from "node:process";
import { MemoryDevice } from "../../driver/memory.ts";
import { openTunnel, type Tunnel } from "../../runtime/mod.ts";
import echo from "../../scripts/icmp_echo.ts";
import type { Counts, Reply, Road, Version } from "./measure.ts";
import { datagram, echoRequest, replyIn } from "./packets.ts";

/** The road through memory: what a tunnel at one device sends, the script's tunnel at the other one answers. */
export class MemoryRoad implements Road, AsyncDisposable {
  /** What was opened. */
  readonly about = "icmp_echo.ts on a MemoryDevice, in one process with its tester";
  /** Both sides. */
  readonly cpuOf = "CPU, both sides";
  /** Rejects when the script fails. */
  readonly failed: Promise<never>;

  readonly #script: Tunnel;
  readonly #tester: Tunnel;
  readonly #datagram = datagram();
  readonly #replies: Reply[] = [];
  #arrived: (() => void) | undefined;

  private constructor(script: Tunnel, tester: Tunnel) {
    this.#script = script;
    this.#tester = tester;
    const ends = [echo.main(script), this.#receive()];
    this.failed = Promise.all(ends).then(() => new Promise<never>(() => {}));
    this.failed.catch(() => {});
  }

  /** Opens both tunnels and starts the script. */
  static async open(): Promise<MemoryRoad> {
    const [device, outside] = MemoryDevice.pair();
    const script = await openTunnel({ ...echo.options, device, signals: false });
    return new MemoryRoad(script, await openTunnel({ device: outside, signals: false }));
  }

  async #receive(): Promise<void> {
    for await (const batch of this.#tester) {
      for (const packet of batch) {
        const reply = replyIn(packet);
        if (reply !== undefined) this.#replies.push(reply);
      }
      this.#arrived?.();
    }
  }

  /** Sends an echo request. */
  ping(version: Version, seq: number): void {
    this.#tester.send(echoRequest(version, seq));
  }

  /** The next reply. */
  async reply(milliseconds: number): Promise<Reply | undefined> {
    if (this.#replies.length === 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#arrived = resolve;
      const timer = setTimeout(resolve, milliseconds);
      await Promise.race([promise, this.failed]);
      clearTimeout(timer);
    }
    return this.#replies.shift();
  }

  /** Sends datagrams, and lets the loop have its turn. */
  async sendDatagrams(count: number): Promise<void> {
    for (let i = 0; i < count; i++) this.#tester.send(this.#datagram);
    await setImmediate();
  }

  /** The two tunnels' own counters. */
  counts(): Counts {
    const { outbound, inbound, dropped } = this.#script.stats;
    const sum = (reasons: Record<string, number>) => Object.values(reasons).reduce((a, b) => a + b, 0);
    return {
      fromHere: outbound.packetsIn,
      toHere: inbound.packetsOut,
      queueDrops: sum(this.#tester.stats.dropped),
      scriptDrops: sum(dropped),
    };
  }

  /** Of this process. */
  cpu(): number {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  }

  /** Closes both. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tester[Symbol.asyncDispose]();
    await this.#script[Symbol.asyncDispose]();
  }
}
