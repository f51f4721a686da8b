/** A stage that knows who talks most: by flow, by prefix, by protocol. */

import { type Address, Prefix } from "../../wire/address.ts";
import type { PacketBatch, Stage, StageContext } from "../../core/mod.ts";
import { FlowKey, FlowKind } from "../../table/flow_key.ts";
import { FlowTable } from "../../table/flow_table.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";
import { Protocol } from "../../wire/protocol.ts";

// Implementation
const NAMES_OF_OPTIONS: OptionNames<MeterOptions> = {
  flows: "optional",
  prefixes: "optional",
  prefixLength4: "optional",
  prefixLength6: "optional",
  halfLife: "optional",
  timeout: "optional",
};
const CAPACITY = 16_384;
const PREFIXES = 4096;
const HALF_LIFE = 10_000;
/** How long a talker is remembered after its last packet (milliseconds). */
const TIMEOUT = 10 * 60_000;
const LENGTHS = { 4: 24, 6: 48 } as const;
/** The lengths of keys: of a protocol, and of flows over IPv4 and IPv6. */
const KEY_LENGTHS = [1, 4, 10];
/** Packets and bytes, both ways. */
const COUNTERS = 4;
/** How often those are forgotten that are silent (milliseconds). */
const INTERVAL = 1000;
const NAMES: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(Protocol).map(([name, protocol]) => [protocol, name]),
);

/** Options of a {@linkcode Meter}. */
export interface MeterOptions {
  /** How many flows are known at most; the longest silent one makes room. @default {16384} */
  readonly flows?: number;
  /** How many prefixes. @default {4096} */
  readonly prefixes?: number;
  /** How many first bits of an IPv4 address make a prefix. @default {24} */
  readonly prefixLength4?: number;
  /** How many of an IPv6 address. @default {48} */
  readonly prefixLength6?: number;
  /** After how long a burst counts half in a rate (milliseconds). @default {10000} */
  readonly halfLife?: number;
  /** How long a flow or a prefix may be silent (milliseconds). @default {600000} */
  readonly timeout?: number;
}

/** What somebody said and heard. A super-packet is one packet. */
export interface Talk {
  /** Outbound packets. */
  readonly packetsOut: number;
  /** Their bytes, from the IP header on. */
  readonly bytesOut: number;
  /** Inbound packets. */
  readonly packetsIn: number;
  /** Their bytes. */
  readonly bytesIn: number;
  /** Both ways, lately. */
  readonly rateBitsPerSecond: number;
}

/** A flow, seen from this machine's side: both directions are one. */
export interface FlowTalk extends Talk {
  /** Its protocol, such as `Tcp`, or its number. */
  readonly protocol: string;
  /** This machine's side. */
  readonly near: Address;
  /** The other side. */
  readonly far: Address;
  /** The port on this machine's side; 0 without one. */
  readonly nearPort: number;
  /** The port on the other side. */
  readonly farPort: number;
}

/** A prefix on the far side. */
export interface PrefixTalk extends Talk {
  /** The prefix. */
  readonly prefix: Prefix;
}

/** A protocol. */
export interface ProtocolTalk extends Talk {
  /** Its name, or its number. */
  readonly protocol: string;
}

/** Counters of many talkers, by their numbers. */
class Columns {
  readonly #packetsOut: Float64Array;
  readonly #bytesOut: Float64Array;
  readonly #packetsIn: Float64Array;
  readonly #bytesIn: Float64Array;
  /** Bits, each of which counts half after a half-life; as of a time. */
  readonly #weights: Float64Array;
  readonly #times: Float64Array;
  readonly #halfLife: number;

  constructor(count: number, halfLife: number) {
    const column = () => new Float64Array(count);
    [this.#packetsOut, this.#bytesOut, this.#packetsIn, this.#bytesIn] = [
      column(),
      column(),
      column(),
      column(),
    ];
    [this.#weights, this.#times] = [column(), column()];
    this.#halfLife = halfLife;
  }

  clear(number: number): void {
    for (const column of this.#counters) column[number] = 0;
    this.#weights[number] = 0;
  }

  count(number: number, bytes: number, isOutbound: boolean, now: number): void {
    if (isOutbound) {
      this.#packetsOut[number]!++;
      this.#bytesOut[number]! += bytes;
    } else {
      this.#packetsIn[number]!++;
      this.#bytesIn[number]! += bytes;
    }
    this.#weights[number] = this.#weightAt(number, now) + 8 * bytes;
    this.#times[number] = now;
  }

  talkOf(number: number, now: number): Talk {
    const [packetsOut, bytesOut, packetsIn, bytesIn] = this.#counters.map((column) => column[number]!);
    // The weight of a steady rate is the rate times the half-life over ln 2.
    const rateBitsPerSecond = this.#weightAt(number, now) * Math.LN2 / this.#halfLife * 1000;
    return {
      packetsOut: packetsOut!,
      bytesOut: bytesOut!,
      packetsIn: packetsIn!,
      bytesIn: bytesIn!,
      rateBitsPerSecond,
    };
  }

  save(number: number): number[] {
    return this.#counters.map((column) => column[number]!);
  }

  restore(number: number, counters: readonly number[]): void {
    this.clear(number);
    this.#counters.forEach((column, i) => column[number] = counters[i]!);
  }

  bytesOf(number: number): number {
    return this.#bytesOut[number]! + this.#bytesIn[number]!;
  }

  get #counters(): Float64Array[] {
    return [this.#packetsOut, this.#bytesOut, this.#packetsIn, this.#bytesIn];
  }

  #weightAt(number: number, now: number): number {
    const age = now - this.#times[number]!;
    return age === 0 ? this.#weights[number]! : this.#weights[number]! * 2 ** (-age / this.#halfLife);
  }
}

/**
 * Measures who talks how much through the tunnel.
 *
 * **Outbound**: counted, and passed on untouched. **Inbound**: the same, under the same flow.
 *
 * **Options**: `flows` (16,384), `prefixes` (4096), `prefixLength4` (24), `prefixLength6` (48), `halfLife` (10 s), `timeout`
 * (10 min).
 *
 * **Counters**: `flows()`, `prefixes()` and `protocols()` give the top talkers; `evicted` counts flows and prefixes that
 * were forgotten for want of room; `unknown` packets that belong to no flow, such as later fragments, ICMP errors
 * and what is malformed.
 *
 * **Limits**: with more talkers than there is room for, small ones lose their counts, and may count anew.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatAddress } from "@warren/tunnel/address";
 * import { Meter } from "@warren/tunnel/meter";
 *
 * const meter = new Meter();
 * // tunnel.use(meter), and once in a while:
 * for (const { protocol, far, farPort, rateBitsPerSecond } of meter.flows(10)) {
 *   console.log(protocol, formatAddress(far), farPort, rateBitsPerSecond);
 * }
 * assert(meter.flows(10).length === 0);
 * ```
 */
export class Meter implements Stage {
  readonly name = "meter";
  /** Flows and prefixes that were forgotten for want of room. */
  evicted = 0;
  /** Packets of no flow. */
  unknown = 0;

  readonly #key = new FlowKey();
  readonly #flows: FlowTable;
  readonly #flowColumns: Columns;
  readonly #prefixes: FlowTable;
  readonly #prefixColumns: Columns;
  readonly #protocolColumns: Columns;
  readonly #prefixLength4: number;
  readonly #prefixLength6: number;
  #now = 0;

  /**
   * Has seen nobody.
   *
   * @throws {RangeError} when an option is out of its range.
   */
  constructor(options: MeterOptions = {}) {
    checkNames("measure", options, NAMES_OF_OPTIONS);
    const { flows = CAPACITY, prefixes = PREFIXES, halfLife = HALF_LIFE, timeout = TIMEOUT } = options;
    const { prefixLength4 = LENGTHS[4], prefixLength6 = LENGTHS[6] } = options;
    if (!(halfLife > 0)) throw new RangeError(`Cannot measure rates with a half-life of ${halfLife} ms`);
    for (const [length, most] of [[prefixLength4, 32], [prefixLength6, 128]] as const) {
      if (!Number.isInteger(length) || length < 0 || length > most) {
        throw new RangeError(`Cannot measure prefixes of ${length} bits: 0 to ${most} are possible`);
      }
    }
    this.#flows = new FlowTable({ timeouts: [timeout], capacity: flows });
    this.#flowColumns = new Columns(flows, halfLife);
    this.#prefixes = new FlowTable({ timeouts: [timeout], capacity: prefixes });
    this.#prefixColumns = new Columns(prefixes, halfLife);
    this.#protocolColumns = new Columns(256, halfLife);
    this.#prefixLength4 = prefixLength4;
    this.#prefixLength6 = prefixLength6;
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    this.#measure(batch, context.now, true);
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    this.#measure(batch, context.now, false);
  }

  /** Forgets those that have been silent for too long. */
  tick({ now }: StageContext): number {
    this.#now = now;
    return this.#flows.expire(now) + this.#prefixes.expire(now) > 0 ? 0 : INTERVAL;
  }

  /** All counters; rates start anew. */
  save(): unknown {
    const protocols = Array.from({ length: 256 }, (_, protocol) => this.#protocolColumns.save(protocol));
    return {
      flows: this.#saveTable(this.#flows, this.#flowColumns),
      prefixes: this.#saveTable(this.#prefixes, this.#prefixColumns),
      protocols: protocols.flatMap((counters, protocol) =>
        counters.some((counter) => counter > 0) ? [{ key: [protocol], counters, seen: 0 }] : []
      ),
    };
  }

  /**
   * Goes on from counters that were saved, in place of its own.
   *
   * @throws {TypeError} when it is no state of a `Meter`.
   */
  restore(state: unknown): void {
    const saved = state as Partial<Record<"flows" | "prefixes" | "protocols", unknown>> | null;
    const [flows, prefixes, protocols] = [saved?.flows, saved?.prefixes, saved?.protocols].map(checkRows);
    restoreTable(this.#flows, this.#flowColumns, flows!);
    restoreTable(this.#prefixes, this.#prefixColumns, prefixes!);
    for (const { key: [protocol], counters } of protocols!) {
      this.#protocolColumns.restore(protocol! & 0xff, counters);
    }
  }

  /** The flows with the most bytes, the greatest first. */
  flows(most: number): FlowTalk[] {
    const key = new FlowKey();
    return top([...this.#flows], this.#flowColumns, most).map((flow) => {
      this.#flows.readKey(flow, key);
      const { src: near, dst: far, srcPort: nearPort, dstPort: farPort, protocol } = key;
      const ends = { near, far, nearPort, farPort };
      return { protocol: nameOf(protocol), ...ends, ...this.#flowColumns.talkOf(flow, this.#now) };
    });
  }

  /** The far side's prefixes with the most bytes, the greatest first. */
  prefixes(most: number): PrefixTalk[] {
    const key = new FlowKey();
    return top([...this.#prefixes], this.#prefixColumns, most).map((number) => {
      this.#prefixes.readKey(number, key);
      const length = key.version === 4 ? this.#prefixLength4 : this.#prefixLength6;
      return { prefix: new Prefix(key.dst, length), ...this.#prefixColumns.talkOf(number, this.#now) };
    });
  }

  /** The protocols with the most bytes, the greatest first. */
  protocols(most = 256): ProtocolTalk[] {
    const seen = Array.from({ length: 256 }, (_, protocol) => protocol)
      .filter((protocol) => this.#protocolColumns.bytesOf(protocol) > 0);
    return top(seen, this.#protocolColumns, most).map((protocol) => ({
      protocol: nameOf(protocol),
      ...this.#protocolColumns.talkOf(protocol, this.#now),
    }));
  }

  #saveTable(table: FlowTable, columns: Columns): Row[] {
    const key = new FlowKey();
    return Array.from(table, (number) => {
      table.readKey(number, key);
      const words = Array.from(key.words.subarray(0, key.length));
      return { key: words, counters: columns.save(number), seen: table.seenAt(number) - this.#now };
    });
  }

  #measure({ packets, length }: PacketBatch, now: number, isOutbound: boolean): void {
    this.#now = now;
    const key = this.#key;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      if (key.read(packet) !== FlowKind.Packet) {
        this.unknown++;
        continue;
      }
      if (!isOutbound) key.reverse();
      const bytes = packet.length;
      this.#protocolColumns.count(key.protocol, bytes, isOutbound, now);
      this.#countIn(this.#flows, this.#flowColumns, bytes, isOutbound, now);
      this.#toPrefix();
      this.#countIn(this.#prefixes, this.#prefixColumns, bytes, isOutbound, now);
    }
  }

  #countIn(table: FlowTable, columns: Columns, bytes: number, isOutbound: boolean, now: number): void {
    let number = table.find(this.#key, now);
    if (number < 0) {
      if (table.size === table.capacity) this.evicted++;
      number = table.add(this.#key, 0, now);
      columns.clear(number);
    } else table.touch(number, now);
    columns.count(number, bytes, isOutbound, now);
  }

  /** Leaves the key nothing but the prefix of the far address. */
  #toPrefix(): void {
    const { words, length } = this.#key;
    const is4 = length === 4;
    const addressWords = is4 ? 1 : 4;
    words[0] = words[0]! & 0xff00;
    let bits: number = is4 ? this.#prefixLength4 : this.#prefixLength6;
    for (let i = 0; i < addressWords; i++, bits -= 32) {
      words[1 + i] = 0;
      const at = 1 + addressWords + i;
      if (bits < 32) words[at] = bits <= 0 ? 0 : words[at]! & 0xffffffff << 32 - bits;
    }
    words[length - 1] = 0;
  }
}

/** What is saved of a talker. */
interface Row {
  readonly key: readonly number[];
  readonly counters: readonly number[];
  /** When it was last seen, from the time of saving on (milliseconds, 0 or less). */
  readonly seen: number;
}

function checkRows(rows: unknown): Row[] {
  const isRow = ({ key, counters, seen }: Partial<Row>) =>
    [key, counters].every((numbers) => Array.isArray(numbers) && numbers.every((number) => number >= 0)) &&
    KEY_LENGTHS.includes(key!.length) && counters!.length === COUNTERS && typeof seen === "number";
  if (Array.isArray(rows) && rows.every((row) => typeof row === "object" && row !== null && isRow(row))) {
    return rows;
  }
  throw new TypeError('Cannot restore "meter": it is no state of a meter');
}

function restoreTable(table: FlowTable, columns: Columns, rows: readonly Row[]): void {
  const key = new FlowKey();
  table.clear();
  for (const { key: words, counters, seen } of rows) {
    key.words.set(words);
    key.length = words.length;
    if (table.find(key, seen) < 0) columns.restore(table.add(key, 0, seen), counters);
  }
}

function top(numbers: number[], columns: Columns, most: number): number[] {
  return numbers.sort((a, b) => columns.bytesOf(b) - columns.bytesOf(a)).slice(0, most);
}

function nameOf(protocol: number): string {
  return NAMES[protocol] ?? String(protocol);
}
