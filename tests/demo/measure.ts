/** What the demo does and counts, the same over the kernel and in memory. */

import { setImmediate, setTimeout } from "node:timers/promises";

/** The IP version of an echo request. */
export type Version = 4 | 6;

/** An echo reply. */
export interface Reply {
  readonly version: Version;
  /** Its sequence number. */
  readonly seq: number;
}

/** What has passed so far, as somebody counts who is not the sender. */
export interface Counts {
  /** Packets that the script read. */
  readonly fromHere: number;
  /** Packets that the script sent back. */
  readonly toHere: number;
  /** Packets dropped before the script, because its queue was full. */
  readonly queueDrops: number;
  /** Packets that the script dropped. */
  readonly scriptDrops: number;
}

/** How packets get to the script and back. */
export interface Road {
  /** What was opened, in a sentence. */
  readonly about: string;
  /** Whose processor time {@linkcode Road.cpu} is. */
  readonly cpuOf: string;
  /** Sends an echo request. */
  ping(version: Version, seq: number): void;
  /** The next echo reply; `undefined`: none came within so many milliseconds. */
  reply(milliseconds: number): Promise<Reply | undefined>;
  /** Sends so many datagrams that want no answer. */
  sendDatagrams(count: number): void | Promise<void>;
  /** What has passed. */
  counts(): Counts;
  /** Processor time used so far (milliseconds). */
  cpu(): number;
}

/** What became of a part of the demo. */
export interface Part {
  readonly name: string;
  /** Packets handed to the road. */
  readonly sent: number;
  readonly counts: Counts;
  /** How long it took (milliseconds). */
  readonly elapsed: number;
  /** Processor time (milliseconds). */
  readonly cpu: number;
  /** For echo requests: how many got no answer, and how long the others took (milliseconds). */
  readonly echo?: { lost: number; min: number; median: number; p99: number; max: number };
}

// Implementation
const PINGS = 200;
const PING_INTERVAL = 8;
const TIMEOUT = 1000;
const FLOOD = 2500;
/** Echo requests under way in a flood. */
const WINDOW = 64;
/** Datagrams between two looks at the clock. */
const BURST = 64;
/** How long a flood keeps the event loop from turning (milliseconds). */
const TURN = 20;

/** Waits for the answer to one echo request, asked for again and again; the time when it came, `undefined`: never. */
export async function firstAnswer(road: Road): Promise<number | undefined> {
  for (let seq = 0; seq < 50; seq++) {
    road.ping(4, seq);
    if (await road.reply(TIMEOUT / 10) !== undefined) return performance.now();
  }
}

/** The whole demo. */
export async function measure(road: Road, progress: (text: string) => void): Promise<Part[]> {
  const parts = [];
  for (const version of [4, 6] as const) {
    progress(`pinging over IPv${version}`);
    parts.push(await part(road, `ping IPv${version}, every ${PING_INTERVAL} ms`, () => pings(road, version)));
  }
  progress("flooding it with echo requests");
  parts.push(await part(road, `ping flood, ${WINDOW} under way`, () => echoFlood(road)));
  progress("flooding it with UDP");
  parts.push(await part(road, "UDP flood, 1400 bytes", () => udpFlood(road)));
  return parts;
}

/** What a part did: packets sent, round trips in milliseconds, requests without an answer. */
interface Done {
  readonly sent: number;
  readonly trips?: number[];
  readonly lost?: number;
}

async function part(road: Road, name: string, run: () => Promise<Done>): Promise<Part> {
  const before = { counts: road.counts(), cpu: road.cpu(), time: performance.now() };
  const { sent, trips, lost = 0 } = await run();
  const elapsed = performance.now() - before.time;
  const cpu = road.cpu() - before.cpu;
  const counts = await settled(road, before.counts, sent);
  return { name, sent, counts, elapsed, cpu, echo: trips && { lost, ...spread(trips) } };
}

/** The difference to the counts before, once every packet sent is among them. */
async function settled(road: Road, before: Counts, sent: number): Promise<Counts> {
  for (let attempt = 0;; attempt++) {
    const now = road.counts();
    const counts = {
      fromHere: now.fromHere - before.fromHere,
      toHere: now.toHere - before.toHere,
      queueDrops: now.queueDrops - before.queueDrops,
      scriptDrops: now.scriptDrops - before.scriptDrops,
    };
    if (counts.fromHere + counts.queueDrops >= sent || attempt === 50) return counts;
    await setTimeout(PING_INTERVAL);
  }
}

/** The smallest, the middle, the one hundredth from the end, the largest. */
export function spread(values: readonly number[]): { min: number; median: number; p99: number; max: number } {
  const sorted = Float64Array.from(values).sort();
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
  return { min: at(0), median: at(0.5), p99: at(0.99), max: at(1) };
}

async function pings(road: Road, version: Version): Promise<Done> {
  const trips: number[] = [];
  for (let seq = 0; seq < PINGS; seq++) {
    const start = performance.now();
    road.ping(version, seq);
    for (;;) {
      const reply = await road.reply(TIMEOUT);
      if (reply === undefined) break;
      if (reply.version !== version || reply.seq !== seq) continue;
      trips.push(performance.now() - start);
      break;
    }
    await setTimeout(Math.max(0, PING_INTERVAL - (performance.now() - start)));
  }
  return { sent: PINGS, trips, lost: PINGS - trips.length };
}

async function echoFlood(road: Road): Promise<Done> {
  const trips: number[] = [];
  const started = new Float64Array(0x10000);
  let [sent, lost, underWay] = [0, 0, 0];
  const end = performance.now() + FLOOD;
  let turned = performance.now();
  for (let now = turned; now < end || underWay > 0; now = performance.now()) {
    while (underWay < WINDOW && now < end) {
      const seq = sent++ & 0xffff;
      started[seq] = performance.now();
      road.ping(4, seq);
      underWay++;
    }
    const reply = await road.reply(TIMEOUT);
    if (reply === undefined) {
      lost += underWay;
      underWay = 0;
      continue;
    }
    trips.push(performance.now() - started[reply.seq]!);
    underWay--;
    if (now - turned > TURN) {
      await setImmediate();
      turned = now;
    }
  }
  return { sent, trips, lost };
}

async function udpFlood(road: Road): Promise<Done> {
  let sent = 0;
  const end = performance.now() + FLOOD;
  let turned = performance.now();
  for (let now = turned; now < end; now = performance.now()) {
    await road.sendDatagrams(BURST);
    sent += BURST;
    if (now - turned < TURN) continue;
    await setImmediate();
    turned = now;
  }
  return { sent };
}
