/** A stage that measures traffic by flow, by prefix and by protocol: the top talkers. */

import { type Address, Prefix } from "../../wire/address.ts";
import type { PacketBatch, Stage, StageContext } from "../../core/mod.ts";
import { FlowKey, FlowKind } from "../../table/flow_key.ts";
import { MAX_CAPACITY } from "../../table/flow_limits.ts";
import { FlowTable } from "../../table/flow_table.ts";
import { checkInteger, checkMin, checkOptions, type OptionKinds } from "../../core/options.ts";
import { Protocol } from "../../wire/protocol.ts";

// Implementation
const NAMES_OF_OPTIONS: OptionKinds<MeterOptions> = {
  flows: "number",
  prefixes: "number",
  prefixLength4: "number",
  prefixLength6: "number",
  halfLife: "number",
  timeout: "number",
};
const CAPACITY = 16_384;
const PREFIXES = 4096;
const HALF_LIFE = 10_000;
const TIMEOUT = 10 * 60_000;
const LENGTHS = { 4: 24, 6: 48 } as const;
/** Lengths of saved keys (words): a protocol, and flows over IPv4 and IPv6. */
const KEY_LENGTHS = [1, 4, 10];
/** Packets and bytes in each direction. */
const COUNTERS = 4;
/** Interval at which idle flows and prefixes are removed (milliseconds). */
const INTERVAL = 1000;
const NAMES: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(Protocol).map(([name, protocol]) => [protocol, name]),
);

/** Options of {@linkcode Meter}. */
export interface MeterOptions {
  /** Maximum number of flows; the longest idle one is evicted. @default {16384} */
  readonly flows?: number;
  /** Maximum number of prefixes; the longest idle one is evicted. @default {4096} */
  readonly prefixes?: number;
  /** Prefix length of IPv4 addresses (bits). @default {24} */
  readonly prefixLength4?: number;
  /** Prefix length of IPv6 addresses (bits). @default {48} */
  readonly prefixLength6?: number;
  /** Half-life of traffic in the moving average of rates (milliseconds). @default {10000} */
  readonly halfLife?: number;
  /** Idle time after which a flow or prefix is removed (milliseconds). @default {600000} */
  readonly timeout?: number;
}

/** Traffic of a flow, prefix or protocol. A super-packet counts as one packet. */
export interface Traffic {
  /** Outbound packets. */
  readonly packetsOut: number;
  /** Outbound bytes, IP headers included. */
  readonly bytesOut: number;
  /** Inbound packets. */
  readonly packetsIn: number;
  /** Inbound bytes, IP headers included. */
  readonly bytesIn: number;
  /** Current rate of both directions together: an exponential moving average. */
  readonly rateBitsPerSecond: number;
}

/** Traffic of a flow, as seen from this machine; both directions are one flow. */
export interface FlowTraffic extends Traffic {
  /** Protocol name, such as `Tcp`, or number. */
  readonly protocol: string;
  /** Address on this machine's side. */
  readonly near: Address;
  /** Address on the far side. */
  readonly far: Address;
  /** Port on this machine's side; 0 for protocols without ports. */
  readonly nearPort: number;
  /** Port on the far side. */
  readonly farPort: number;
}

/** Traffic of a prefix on the far side. */
export interface PrefixTraffic extends Traffic {
  /** Prefix of the far addresses. */
  readonly prefix: Prefix;
}

/** Traffic of a protocol. */
export interface ProtocolTraffic extends Traffic {
  /** Protocol name, such as `Tcp`, or number. */
  readonly protocol: string;
}

/** Counters by number of a flow, prefix or protocol, one typed array per counter. */
class Columns {
  readonly #packetsOut: Float64Array;
  readonly #bytesOut: Float64Array;
  readonly #packetsIn: Float64Array;
  readonly #bytesIn: Float64Array;
  /** Bits, decayed with the half-life up to the time in `#times`. */
  readonly #weights: Float64Array;
  readonly #times: Float64Array;
  readonly #halfLife: number;

  constructor(count: number, halfLife: number) {
    this.#packetsOut = new Float64Array(count);
    this.#bytesOut = new Float64Array(count);
    this.#packetsIn = new Float64Array(count);
    this.#bytesIn = new Float64Array(count);
    this.#weights = new Float64Array(count);
    this.#times = new Float64Array(count);
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

  trafficOf(number: number, now: number): Traffic {
    return {
      packetsOut: this.#packetsOut[number]!,
      bytesOut: this.#bytesOut[number]!,
      packetsIn: this.#packetsIn[number]!,
      bytesIn: this.#bytesIn[number]!,
      // The weight of a steady rate is the rate times the half-life over ln 2.
      rateBitsPerSecond: this.#weightAt(number, now) * Math.LN2 / this.#halfLife * 1000,
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
 * Measures packets, bytes and rates by flow, by far prefix and by protocol, and ranks them by bytes.
 *
 * **Outbound** and **inbound**: counts each packet; passes all packets unchanged. Both directions count for one flow.
 * **Options**: {@linkcode MeterOptions}. **Counters**: `evicted`, `unknown`.
 * **Limits**: an evicted flow or prefix loses its counts and starts again at zero.
 *
 * @example The flow with the most bytes
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatAddress } from "@warren/tunnel/address";
 * import { PacketBatch, PacketPool, type StageContext } from "@warren/tunnel/core";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { Meter } from "@warren/tunnel/meter";
 * import { Udp } from "@warren/tunnel/udp";
 *
 * const meter = new Meter();
 * const packet = new PacketPool().from(new TextEncoder().encode("hello"))!;
 * Udp.encode(packet, { srcPort: 5000, dstPort: 53 });
 * Ipv4.encode(packet, { src: 0x0a090001, dst: 0xc0000201, protocol: 17 });
 * const batch = new PacketBatch();
 * batch.push(packet);
 * meter.outbound(batch, { now: 0 } as StageContext); // the tunnel does this
 *
 * const [{ protocol, far, farPort, bytesOut }] = meter.flows(1);
 * assert.deepEqual([protocol, formatAddress(far), farPort, bytesOut], ["Udp", "192.0.2.1", 53, 33]);
 * ```
 */
export class Meter implements Stage {
  readonly name = "meter";
  /** Flows and prefixes evicted because their table was full. */
  evicted = 0;
  /** Packets without a flow: fragments other than the first, ICMP errors and malformed packets. */
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
   * Starts empty.
   *
   * @throws {RangeError} when an option is out of range.
   */
  constructor(options: MeterOptions = {}) {
    checkOptions("measure", options, NAMES_OF_OPTIONS);
    const { flows = CAPACITY, prefixes = PREFIXES, halfLife = HALF_LIFE, timeout = TIMEOUT } = options;
    const { prefixLength4 = LENGTHS[4], prefixLength6 = LENGTHS[6] } = options;
    checkInteger("measure", "flows", flows, 1, MAX_CAPACITY);
    checkInteger("measure", "prefixes", prefixes, 1, MAX_CAPACITY);
    checkMin("measure", "halfLife", halfLife, 1);
    checkMin("measure", "timeout", timeout, 1);
    checkInteger("measure", "prefixLength4", prefixLength4, 0, 32);
    checkInteger("measure", "prefixLength6", prefixLength6, 0, 128);
    this.#flows = new FlowTable({ timeouts: [timeout], capacity: flows });
    this.#flowColumns = new Columns(flows, halfLife);
    this.#prefixes = new FlowTable({ timeouts: [timeout], capacity: prefixes });
    this.#prefixColumns = new Columns(prefixes, halfLife);
    this.#protocolColumns = new Columns(256, halfLife);
    this.#prefixLength4 = prefixLength4;
    this.#prefixLength6 = prefixLength6;
  }

  /** Counters for `Tunnel.stats`. */
  get counters(): object {
    return { evicted: this.evicted, unknown: this.unknown };
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    this.#measure(batch, context.now, true);
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    this.#measure(batch, context.now, false);
  }

  /** Removes idle flows and prefixes. */
  tick({ now }: StageContext): number {
    this.#now = now;
    return this.#flows.expire(now) + this.#prefixes.expire(now) > 0 ? 0 : INTERVAL;
  }

  /** Returns all counters; rates are not saved. */
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
   * Replaces all counters with those of {@linkcode Meter.save}; rates start at zero.
   *
   * @throws {TypeError} when `state` does not come from a `Meter`; the counters are unchanged.
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

  /** Returns up to `limit` flows with the most bytes, in descending order. */
  flows(limit: number): FlowTraffic[] {
    const key = new FlowKey();
    return top([...this.#flows], this.#flowColumns, limit).map((flow) => {
      this.#flows.readKey(flow, key);
      const { src: near, dst: far, srcPort: nearPort, dstPort: farPort, protocol } = key;
      const ends = { near, far, nearPort, farPort };
      return { protocol: nameOf(protocol), ...ends, ...this.#flowColumns.trafficOf(flow, this.#now) };
    });
  }

  /** Returns up to `limit` far prefixes with the most bytes, in descending order. */
  prefixes(limit: number): PrefixTraffic[] {
    const key = new FlowKey();
    return top([...this.#prefixes], this.#prefixColumns, limit).map((number) => {
      this.#prefixes.readKey(number, key);
      const length = key.version === 4 ? this.#prefixLength4 : this.#prefixLength6;
      return { prefix: new Prefix(key.dst, length), ...this.#prefixColumns.trafficOf(number, this.#now) };
    });
  }

  /** Returns up to `limit` protocols with the most bytes, in descending order. */
  protocols(limit = 256): ProtocolTraffic[] {
    const seen = Array.from({ length: 256 }, (_, protocol) => protocol)
      .filter((protocol) => this.#protocolColumns.bytesOf(protocol) > 0);
    return top(seen, this.#protocolColumns, limit).map((protocol) => ({
      protocol: nameOf(protocol),
      ...this.#protocolColumns.trafficOf(protocol, this.#now),
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

  /** Reduces the key to the IP version and the far address's prefix. */
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

/** Saved counters of one flow, prefix or protocol. */
interface Row {
  readonly key: readonly number[];
  readonly counters: readonly number[];
  /** Time of its last packet, relative to the time of saving (milliseconds, 0 or less). */
  readonly seen: number;
}

function checkRows(rows: unknown): Row[] {
  const isRow = ({ key, counters, seen }: Partial<Row>) =>
    [key, counters].every((numbers) => Array.isArray(numbers) && numbers.every((number) => number >= 0)) &&
    KEY_LENGTHS.includes(key!.length) && counters!.length === COUNTERS && typeof seen === "number";
  if (Array.isArray(rows) && rows.every((row) => typeof row === "object" && row !== null && isRow(row))) {
    return rows;
  }
  throw new TypeError('Cannot restore "meter": the state does not come from a meter');
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

function top(numbers: number[], columns: Columns, limit: number): number[] {
  return numbers.sort((a, b) => columns.bytesOf(b) - columns.bytesOf(a)).slice(0, limit);
}

function nameOf(protocol: number): string {
  return NAMES[protocol] ?? String(protocol);
}
