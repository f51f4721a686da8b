/**
 * Workers of a script whose devices have several queues: each worker serves one queue. The first worker is the program
 * itself, which also opens the devices, receives signals and prints.
 *
 *     program ── openTunnel ── start ──────────────────────── go ── main ── all close ── end
 *                                │ here, open       opened ▲   │            ▲ closed, ended ▲
 *     worker 1 …                 └─► load, join ───────────┘   └─► main ────┘───────────────┘
 *
 * A tunnel that ends in one worker ends in all workers.
 */

import { dropShare, openDeviceQueues } from "../../driver/open_device.ts";
import type { CheckedDeviceOptions } from "../../driver/options.ts";
import type { DeviceShare } from "../../driver/share.ts";
import type { Device } from "../../lib/core/mod.ts";
import { currentLoop } from "../engine/loop.ts";
import type { TunnelStart } from "../tunnel/open_tunnel.ts";
import { deviceOptionsOf } from "../transport/device.ts";
import type { Tunnel } from "../tunnel/tunnel.ts";
import type { CheckedTunnelOptions } from "../tunnel/tunnel_options.ts";
import { watchWorker } from "../engine/watchdog.ts";
import { startWorker } from "./boot.ts";
import { closeLinkParts, createLinkParts, type LinkParts, WorkerLink } from "../ring/link.ts";
import type { Order, Report } from "./messages.ts";

// Implementation
/**
 * Time for a worker to close its tunnels, and again to end, before it is terminated (milliseconds). It is longer than
 * the watchdog's, which names the stage that hangs.
 */
const WORKER_TIMEOUT = 10_000;

/** A worker other than the first. */
class PoolWorker {
  readonly index: number;
  /** Settled when the worker's tunnels are open or have failed to open. */
  readonly opened: PromiseWithResolvers<void> = Promise.withResolvers();
  readonly ended: PromiseWithResolvers<void> = Promise.withResolvers();
  /** By name of a tunnel: settled when the tunnel has ended in the worker. */
  readonly closed = new Map<string, PromiseWithResolvers<void>>();
  hasOpened = false;
  hasEnded = false;
  readonly #worker: Worker;
  readonly #port: MessagePort;

  constructor(
    index: number,
    worker: Worker,
    tunnels: Iterable<string>,
    receive: (member: PoolWorker, report: Report) => void,
  ) {
    this.index = index;
    this.#worker = worker;
    for (const name of tunnels) this.closed.set(name, Promise.withResolvers());
    this.opened.promise.catch(() => {});
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.onmessage = (event) => receive(this, event.data);
    // The first message is sent by the worker's program; later messages of its global scope are the script's.
    worker.addEventListener("message", () => worker.postMessage("port", [port2]), { once: true });
  }

  send(order: Order): void {
    if (!this.hasEnded) this.#port.postMessage(order);
  }

  /** Terminates the worker. */
  end(...failures: unknown[]): void {
    this.hasEnded = true;
    if (failures.length > 0) this.opened.reject(failures[0]);
    else this.opened.resolve();
    this.ended.resolve();
    for (const { resolve } of this.closed.values()) resolve();
    this.#port.close();
    this.#worker.terminate();
  }
}

/** A tunnel of all workers. */
interface Shared {
  readonly parts: LinkParts;
  readonly link: WorkerLink;
  /** Shares for the other workers, in order, until they are sent. */
  readonly shares: { readonly device: DeviceShare; far: DeviceShare | undefined }[];
}

/** All workers of a script. */
export class WorkerPool implements AsyncDisposable {
  readonly #module: URL;
  readonly #count: number;
  readonly #script: string;
  readonly #args: readonly string[];
  readonly #tunnels = new Map<string, Shared>();
  readonly #members: PoolWorker[] = [];
  /** Errors of failed workers, thrown when the script ends. */
  readonly #failures: unknown[] = [];
  #exitCode: number | undefined;

  /**
   * Creates a pool for a script with these arguments. `module` is the program of each worker; none is started yet.
   *
   * @throws {TypeError} when an end of a tunnel cannot be opened once for each worker.
   */
  constructor(
    module: URL,
    count: number,
    script: string,
    args: readonly string[],
    tunnels: readonly (readonly [name: string, options: CheckedTunnelOptions])[],
  ) {
    this.#module = module;
    this.#count = count;
    this.#script = script;
    this.#args = args;
    for (const [, options] of tunnels) checkEnds(count, options);
  }

  /** Opens the first worker's side of a tunnel, and the queues of the other workers. */
  async openTunnel(name: string, options: CheckedTunnelOptions, start: TunnelStart): Promise<Tunnel> {
    const parts = await createLinkParts(this.#count);
    const link = await WorkerLink.open({ index: 0, count: this.#count }, parts, {
      sendRing: (ring, to) => this.#members[to - 1]!.send({ kind: "ring", tunnel: name, ring }),
      leave: () => this.#leave(name),
    });
    const shares: Shared["shares"] = [];
    this.#tunnels.set(name, { parts, link, shares });
    const open = (options: CheckedDeviceOptions) => openDeviceQueues({ ...options, queues: this.#count });
    const openNear = async (): Promise<Device> => {
      const opened = await open(options.deviceOptions);
      for (const device of opened.shares) shares.push({ device, far: undefined });
      return opened.device;
    };
    const far = deviceOptionsOf(options.far);
    const openFar = async (): Promise<Device | undefined> => {
      if (far === undefined) return undefined;
      const opened = await open(far);
      opened.shares.forEach((share, i) => shares[i]!.far = share);
      return opened.device;
    };
    return await start.openNear(openNear, openFar, link);
  }

  /** Indexes of the workers that are still loading the script. */
  get loading(): number[] {
    return this.#members.filter(({ hasOpened, hasEnded }) => !hasOpened && !hasEnded).map(({ index }) =>
      index
    );
  }

  /**
   * Starts the other workers, which open their sides of all tunnels. Returns false if a worker has ended meanwhile.
   *
   * @throws {Error} the error of a worker that fails to open its tunnels.
   */
  async start(): Promise<boolean> {
    for (let index = 1; index < this.#count; index++) await this.#add(index);
    for (const member of this.#members) {
      const tunnels = Object.fromEntries(
        Array.from(this.#tunnels, ([name, { parts, shares }]) => [name, { ...shares.shift()!, link: parts }]),
      );
      const { index } = member;
      const [script, args, count] = [this.#script, this.#args, this.#count];
      member.send({ kind: "open", script, args, index, count, tunnels });
    }
    await Promise.all(this.#members.map(({ opened }) => opened.promise));
    return this.#members.every(({ hasEnded }) => !hasEnded);
  }

  /** Lets the other workers call the script's main. */
  go(): void {
    for (const member of this.#members) member.send({ kind: "go" });
  }

  /**
   * Waits until every worker has ended; terminates workers that do not end in time.
   *
   * @throws {Error} the errors of failed workers, except those that a tunnel has reported.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#endLoading();
    for (const member of this.#members) member.send({ kind: "stop" });
    await this.#waitForAll("end", ({ ended }) => ended);
    for (const { parts, shares } of this.#tunnels.values()) {
      await closeLinkParts(parts);
      for (const { device, far } of shares) {
        await dropShare(device);
        if (far !== undefined) await dropShare(far);
      }
    }
    if (this.#exitCode !== undefined) Deno.exit(this.#exitCode);
    if (this.#failures.length === 1) throw this.#failures[0];
    if (this.#failures.length > 1) throw new AggregateError(this.#failures);
  }

  async #add(index: number): Promise<void> {
    const worker = await startWorker(this.#module, `warren worker ${index}`);
    const member = new PoolWorker(
      index,
      worker,
      this.#tunnels.keys(),
      (...report) => this.#receive(...report),
    );
    this.#members.push(member);
    // Deno has printed the uncaught error.
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#lose(member, new Error(`Cannot go on: worker ${index} ended: ${event.message}`));
    });
  }

  #receive(member: PoolWorker, report: Report): void {
    switch (report.kind) {
      case "heart":
        return watchWorker(currentLoop().heartbeat, member.index, report.heart);
      case "opened":
        member.hasOpened = true;
        return member.opened.resolve();
      case "ring": {
        const { tunnel, to, ring } = report;
        if (to === 0) this.#tunnels.get(tunnel)!.link.accept(ring);
        else this.#members[to - 1]!.send({ kind: "ring", tunnel, ring });
        return;
      }
      case "closed":
        member.closed.get(report.tunnel)!.resolve();
        this.#tunnels.get(report.tunnel)!.link.onEnd?.(report.failed ? report.error : undefined);
        return;
      case "ended":
        if (report.exit !== undefined) this.#exitCode ??= report.exit;
        if (report.failed) this.#lose(member, report.error);
        else this.#lose(member);
    }
  }

  /** Ends a worker, and with it all tunnels. */
  #lose(member: PoolWorker, ...failures: unknown[]): void {
    if (member.hasEnded) return;
    this.#failures.push(...failures);
    member.end(...failures);
    watchWorker(currentLoop().heartbeat, member.index, undefined);
    for (const { link } of this.#tunnels.values()) link.onEnd?.(undefined);
  }

  async #leave(name: string): Promise<void> {
    this.#endLoading();
    for (const member of this.#members) member.send({ kind: "close", tunnel: name });
    await this.#waitForAll("close", ({ closed }) => closed.get(name)!);
  }

  /** Terminates workers that have not opened their tunnels: their script may never finish loading. */
  #endLoading(): void {
    for (const member of this.#members) {
      if (!member.hasOpened) this.#lose(member);
    }
  }

  /** Waits for a promise of every worker; terminates workers that take too long. */
  async #waitForAll(verb: string, step: (member: PoolWorker) => PromiseWithResolvers<void>): Promise<void> {
    await Promise.all(this.#members.map(async (member) => {
      const { promise } = step(member);
      const timer = setTimeout(() => {
        const message = `Cannot ${verb} worker ${member.index}: it takes longer than ${WORKER_TIMEOUT} ms`;
        this.#lose(member, new Error(message));
      }, WORKER_TIMEOUT);
      await promise;
      clearTimeout(timer);
    }));
  }
}

/** Checks that the ends of a tunnel can be opened once for each worker. */
function checkEnds(count: number, { given, device, far }: CheckedTunnelOptions): void {
  const attempt = `Cannot use ${count} queues`;
  if (device !== undefined) {
    throw new TypeError(`${attempt} of "${device.name}": the script has opened it with one queue`);
  }
  if (far === undefined) return;
  const options = deviceOptionsOf(far);
  if (options === undefined) {
    const name = typeof given.far === "string"
      ? given.far
      : typeof far === "function"
      ? "of the script"
      : far.name;
    throw new TypeError(
      `${attempt} with far end ${name}: only a device has queues: use tun:NAME, or a handler without a far end`,
    );
  }
  const { queues } = options;
  if (queues > 1 && queues !== count) {
    throw new TypeError(`${attempt} with a far end that has ${queues}: use the same number for both`);
  }
}
