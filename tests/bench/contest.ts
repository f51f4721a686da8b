/**
 * How the benches of relays are held: contenders take turns at the traffic.
 *
 * Each works from the beginning to the end in namespaces of its own ({@linkcode Crossing}). They take turns, in each
 * round in another order; while one has the traffic, the others are idle.
 */

import { command } from "../kit/system.ts";
import type { Entrant, StartOptions } from "./contenders.ts";
import { Crossing, type RelayProgram } from "./crossing.ts";
import { peerVersion } from "./peers.ts";
import { type Contender, latest, type Metric, say } from "./report.ts";
import { delay } from "./wait.ts";

// Implementation
/**
 * The part of the traffic before what is measured: until iperf3 is connected, and what a relay needs of its memory after
 * the others' turns is there again.
 */
const LEAD_IN = 1 / 3;
/** Milliseconds of traffic behind it. */
const LEAD_OUT = 150;

/** What every contest needs. */
const PROGRAMS = ["ip", "sysctl", "iperf3", "ping"];

/** What traffic cost a relay. */
export interface Cost {
  /** Nanoseconds of processor time for a packet; a super-packet is one. */
  readonly perPacket: number;
  /** Nanoseconds of processor time for 1,024 bytes. */
  readonly perKibibyte: number;
  /** How many processors the relay kept busy. */
  readonly processors: number;
}

/** A contender at its crossing. */
export class Runner implements Contender {
  readonly name: string;
  readonly crossing: Crossing;
  readonly figures: Record<string, number[]> = {};
  readonly #signal: AbortSignal;

  constructor(name: string, crossing: Crossing, signal: AbortSignal) {
    this.name = name;
    this.crossing = crossing;
    this.#signal = signal;
  }

  /** Adds figures, by the keys of their metrics. One that is `undefined` leaves a gap. */
  note(figures: Readonly<Record<string, number | undefined>>): void {
    for (const [key, figure] of Object.entries(figures)) {
      if (figure !== undefined) (this.figures[key] ??= []).push(figure);
    }
  }

  /** The relay's processor time, within traffic of so many seconds; `undefined` where there is no relay. */
  async cost(seconds: number): Promise<Cost | undefined> {
    const leadIn = LEAD_IN * seconds * 1000;
    await delay(leadIn, this.#signal);
    const before = this.crossing.progress();
    await delay(seconds * 1000 - leadIn - LEAD_OUT, this.#signal);
    const after = this.crossing.progress();
    if (before === undefined || after === undefined) return undefined;
    const processor = after.processor - before.processor;
    return {
      perPacket: processor / (after.packets - before.packets),
      perKibibyte: processor / (after.bytes - before.bytes) * 1024,
      processors: processor / 1e6 / (after.time - before.time),
    };
  }
}

/** Contenders at their crossings. Disposing of it removes them all. */
export class Contest implements AsyncDisposable {
  /** Who does not take part, or not to the end: `name: why`. */
  readonly missing: string[] = [];
  readonly #crossings = new AsyncDisposableStack();
  readonly #entrants: readonly Entrant[];
  readonly #signal: AbortSignal;
  #runners: readonly Runner[] = [];

  private constructor(entrants: readonly Entrant[], signal: AbortSignal) {
    this.#entrants = entrants;
    this.#signal = signal;
  }

  /**
   * Starts contenders, all at once. Who cannot be built or started is missing.
   *
   * @throws {Deno.errors.PermissionDenied} when this is not root.
   * @throws {Deno.errors.NotFound} when a program is missing that all need.
   */
  static async open(
    entrants: readonly Entrant[],
    options: StartOptions,
    signal: AbortSignal,
  ): Promise<Contest> {
    if (Deno.uid() !== 0) {
      throw new Deno.errors.PermissionDenied("Cannot make network namespaces: not root: run as root");
    }
    for (const program of PROGRAMS) {
      await command(program, ["-V"], { check: false }).catch((cause) => {
        throw new Deno.errors.NotFound(`Cannot make traffic: no ${program} on PATH`, { cause });
      });
    }
    await using undo = new AsyncDisposableStack();
    const contest = undo.use(new Contest(entrants, signal));
    const starts: (() => Promise<Runner | undefined>)[] = [];
    for (const { name, start } of entrants) {
      await contest.#attempt(name, async () => {
        const relay = await start(options); // one after the other: a peer is built once
        starts.push(() => contest.#attempt(name, () => contest.#enter(name, relay)));
      });
    }
    say(`starting ${starts.length} contenders`);
    const runners = await Promise.all(starts.map((start) => start()));
    signal.throwIfAborted();
    contest.#runners = runners.filter((runner) => runner !== undefined);
    undo.move();
    return contest;
  }

  /** Those that take part. */
  get runners(): readonly Runner[] {
    return this.#runners;
  }

  /** What those that take part are, and what built them. */
  get about(): string[] {
    const present = this.#entrants.filter(({ name }) => this.#runner(name) !== undefined);
    const peers = new Set(present.map(({ peer }) => peer).filter((peer) => peer !== undefined));
    const versions = Array.from(peers, peerVersion).join("; ");
    return [
      ...present.map(({ name, about }) => `${name}: ${about}.`),
      ...versions === "" ? [] : [`Built from ${versions}.`],
    ];
  }

  /** Lets all have traffic at the same time. */
  async atOnce(turn: (runner: Runner, index: number) => Promise<void>): Promise<void> {
    await Promise.all(this.#runners.map((runner, index) => this.#turn(runner, () => turn(runner, index))));
    this.#signal.throwIfAborted();
  }

  /** Lets one after the other have traffic, and says the figures that it adds. */
  async takeTurns(
    rounds: number,
    metrics: readonly Metric[],
    turn: (runner: Runner) => Promise<void>,
  ): Promise<void> {
    for (let round = 0; round < rounds; round++) {
      const first = round % this.#runners.length;
      const order = [...this.#runners.slice(first), ...this.#runners.slice(0, first)];
      if (round % 2 === 1) order.reverse(); // nobody always follows the same one
      for (const runner of order) {
        await this.#turn(runner, () => turn(runner));
        this.#signal.throwIfAborted();
        say(`round ${round + 1} of ${rounds}: ${runner.name}: ${latest(runner, metrics)}`);
      }
    }
  }

  /** Ends all contenders and removes their namespaces. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#crossings.disposeAsync();
  }

  #runner(name: string): Runner | undefined {
    return this.#runners.find((runner) => runner.name === name);
  }

  async #enter(name: string, relay: RelayProgram | "veth"): Promise<Runner> {
    const opening = relay === "veth" ? Crossing.openVeth(this.#signal) : Crossing.open(relay, this.#signal);
    return new Runner(name, this.#crossings.use(await opening), this.#signal);
  }

  /** Who fails takes no further part. */
  async #turn(runner: Runner, turn: () => Promise<void>): Promise<void> {
    const done = await this.#attempt(runner.name, () => turn().then(() => true));
    if (done === undefined) this.#runners = this.#runners.filter((other) => other !== runner);
  }

  /** Does what may fail; never rejects. */
  async #attempt<Result>(name: string, action: () => Promise<Result>): Promise<Result | undefined> {
    try {
      return await action();
    } catch (error) {
      if (this.#signal.aborted) return;
      this.missing.push(`${name}: ${(error as Error).message.replaceAll("\n", "; ")}`);
      say(this.missing.at(-1)!);
    }
  }
}
