/**
 * A stateful firewall: packets of known flows pass, and the first rule that matches decides about others.
 *
 *     packet ─► its flow ─┬─ known, or an error about one ────────────────────────► onward
 *                         ├─ invalid, malformed, fragment without its first one ──► dropped
 *                         └─ new ─► rules ─► neighbors ─► default ─┬─ allow ─► flow is added ─► onward
 *                                                                  └─ drop, reject ─► dropped, answered
 */

import { Direction, type Packet, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import { IcmpError, IcmpErrors } from "../../icmp/icmp_error.ts";
import { Ip, Protocol } from "../../wire/ip.ts";
import { MAX_CAPACITY, MAX_EXPIRED } from "../../table/flow_limits.ts";
import { checkInteger, checkOption, checkOptions, type OptionKinds } from "../../core/options.ts";
import { type Decision, Explanation } from "./_explanation.ts";
import { FirewallDrop } from "./_firewall_drop.ts";
import { isNeighborMessage } from "./_neighbors.ts";
import { type CompiledRule, RuleSet } from "./_rule_set.ts";
import { FORMAT, readSaved, type SavedFirewall } from "./_saved.ts";
import { Finding, Tracker } from "./_tracker.ts";
import { TIMEOUTS } from "./flow_state.ts";
import { type FirewallRule, type FirewallVerdict, formatRules, VERDICTS } from "./rule.ts";

// Implementation
const ATTEMPT = "create a firewall";
const NAMES: OptionKinds<FirewallOptions> = {
  rules: "list",
  default: "any",
  capacity: "number",
  midStream: "boolean",
  neighbors: "boolean",
  errors: IcmpErrors,
  hashKey: "numbers",
};
const DEFAULT_NAMES: OptionKinds<Exclude<FirewallOptions["default"], string | undefined>> = {
  outbound: VERDICTS,
  inbound: VERDICTS,
};
const CAPACITY = 65_536;
/** Minimum and maximum time between ticks while there are flows (milliseconds). */
const TICK = 1000;
const MAX_TICK = 10_000;
/** Counters after those of the rules. */
const OTHERS = ["outbound", "inbound", "neighbors", "fragments"] as const;

/** Options of {@linkcode Firewall}. */
export interface FirewallOptions {
  /** Rules in order: the first one that matches decides. @default {[]} */
  readonly rules?: readonly FirewallRule[];
  /**
   * Verdict about new packets that no rule matches, for both directions or for each.
   * @default {{ outbound: "allow", inbound: "drop" }}
   */
  readonly default?: FirewallVerdict | {
    readonly outbound?: FirewallVerdict;
    readonly inbound?: FirewallVerdict;
  };
  /** Maximum number of flows, of about 180 bytes each. @default {65536} */
  readonly capacity?: number;
  /** Picks up TCP connections whose handshake was not seen; their windows are not checked. @default {false} */
  readonly midStream?: boolean;
  /** Passes IPv6 neighbor and multicast listener discovery when no rule matches. @default {true} */
  readonly neighbors?: boolean;
  /** Answers rejected packets. @default {new IcmpErrors()} */
  readonly errors?: IcmpErrors;
  /** Key of the hash table (two 32-bit numbers), for tests. @default {random} */
  readonly hashKey?: readonly [number, number];
}

/** Counters of a rule or a default. */
export interface RuleCounters {
  /** Packets that it decided about, and all that followed in the flows that it allowed, ICMP errors included. */
  readonly packets: number;
  /** Bytes of these packets. */
  readonly bytes: number;
}

/** A rule as text, with its counters. */
export interface RuleReport extends RuleCounters {
  /** Number of the rule, from 1. */
  readonly number: number;
  /** Name of the rule, if it has one. */
  readonly name: string | undefined;
  /** The rule as text, as by `formatRule`. */
  readonly text: string;
}

/**
 * Stateful firewall. Without options it protects a host: outbound flows and their replies pass, all else is dropped.
 *
 * **Outbound** and **inbound**: passes packets of known flows and ICMP errors about them. Drops packets that are invalid for
 * their connection. For new packets the first rule that matches decides, then the default; `reject` answers TCP with a
 * reset and all else with port unreachable (RFC 1122 section 3.2.2.1).
 * **Options**: {@linkcode FirewallOptions}. **Counters**: `flows`, `evicted`; by rule: `rules`, `defaults`.
 * **Drops**: `rule NAME` or `rule NUMBER`, {@linkcode FirewallDrop}.
 * **Memory**: about 180 bytes per flow; a full table evicts unanswered flows first, those opened inbound before others.
 * **Limits**: drops fragments that arrive before their first one; does not verify transport checksums; tracks SCTP and DCCP
 * by ports only. States, timeouts and eviction are described in the README.
 *
 * @example A DNS server, and a port that no rule opens
 * ```ts
 * import assert from "node:assert/strict";
 * import { Direction, PacketPool } from "@warren/tunnel/core";
 * import { Firewall } from "@warren/tunnel/firewall";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { Udp } from "@warren/tunnel/udp";
 *
 * const firewall = new Firewall({
 *   rules: [{ name: "dns", verdict: "allow", direction: "inbound", protocol: "udp", dstPort: 53 }],
 * });
 * const packet = new PacketPool().from(new TextEncoder().encode("hello"))!;
 * Udp.encode(packet, { srcPort: 5000, dstPort: 53 });
 * Ipv4.encode(packet, { src: 0xc0000201, dst: 0x0a090001, protocol: 17 });
 * const { verdict, why } = firewall.explain(packet, Direction.Inbound);
 * assert.deepEqual([verdict, why], ["allow", 'rule 1 "dns" matches this new packet: allow inbound udp to port 53']);
 *
 * Udp.of(packet)!.dstPort = 54;
 * assert.equal(firewall.explain(packet, Direction.Inbound).verdict, "drop");
 * ```
 */
export class Firewall implements Stage {
  /** Name in statistics: `firewall`. */
  readonly name = "firewall";
  readonly #rules: RuleSet;
  readonly #defaults: readonly [outbound: FirewallVerdict, inbound: FirewallVerdict];
  readonly #passesNeighbors: boolean;
  readonly #tracker: Tracker;
  readonly #errors: IcmpErrors;
  readonly #packets: Float64Array;
  readonly #bytes: Float64Array;
  /** Texts of the rules and names of the defaults, by counter. */
  readonly #labels: readonly string[];
  /** Time of the last batch or tick. */
  #now = 0;
  #saved: SavedFirewall | undefined;
  #isTicking = false;
  /** Reason and rule of the last decision. */
  #by: Decision = "default";
  #rule: CompiledRule | undefined;

  /**
   * Checks the rules.
   *
   * @throws {TypeError} for an option of a wrong type, or a wrong value in a rule. Errors about rules state number and field.
   * @throws {SyntaxError} when a prefix, address or range of ports does not parse.
   * @throws {RangeError} when a port or a rate is out of range, or the capacity not from 1 to 2^24.
   */
  constructor(options: FirewallOptions = {}) {
    checkOptions(ATTEMPT, options, NAMES);
    const { rules = [], capacity = CAPACITY, midStream = false, neighbors = true, hashKey } = options;
    const { errors = new IcmpErrors() } = options;
    const { default: verdict = {} } = options;
    checkOption(
      ATTEMPT,
      "default",
      verdict,
      typeof verdict === "object" ? DEFAULT_NAMES : VERDICTS,
    );
    const { outbound = "allow", inbound = "drop" } = typeof verdict === "string"
      ? { outbound: verdict, inbound: verdict }
      : verdict;
    checkInteger(ATTEMPT, "capacity", capacity, 1, MAX_CAPACITY);
    this.#rules = new RuleSet(rules);
    this.#defaults = [outbound, inbound];
    this.#passesNeighbors = neighbors;
    this.#tracker = new Tracker(capacity, midStream, hashKey);
    this.#errors = errors;
    this.#labels = [
      ...this.#rules.rules.map(({ text }) => text),
      ...OTHERS.map((other, i) => i < 2 ? `default ${other} ${this.#defaults[i]}` : other),
    ];
    this.#packets = new Float64Array(this.#labels.length);
    this.#bytes = new Float64Array(this.#labels.length);
  }

  /** Number of flows. */
  get size(): number {
    return this.#tracker.flows.size;
  }

  /** Maximum number of flows. */
  get capacity(): number {
    return this.#tracker.flows.capacity;
  }

  /** Flows evicted from a full table before their timeout. */
  get evicted(): number {
    return this.#tracker.evicted;
  }

  /** Counters for `Tunnel.stats`. */
  get counters(): object {
    return { flows: this.size, evicted: this.evicted };
  }

  /** Rules with their counters; allocates. */
  get rules(): RuleReport[] {
    return this.#rules.rules.map(({ rule, text }, i) => ({
      number: i + 1,
      name: rule.name,
      text,
      packets: this.#packets[i]!,
      bytes: this.#bytes[i]!,
    }));
  }

  /** Counters of the defaults, of neighbor messages, and of fragments after the first; allocates. */
  get defaults(): Record<"outbound" | "inbound" | "neighbors" | "fragments", RuleCounters> {
    const first = this.#rules.rules.length;
    return Object.fromEntries(
      OTHERS.map((other, i) => [other, {
        packets: this.#packets[first + i]!,
        bytes: this.#bytes[first + i]!,
      }]),
    ) as Record<typeof OTHERS[number], RuleCounters>;
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    this.#pass(batch, context, Direction.Outbound);
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    this.#pass(batch, context, Direction.Inbound);
  }

  tick(context: StageContext): number | undefined {
    this.#begin(context.now);
    const { flows, fragments } = this.#tracker;
    const expired = Math.max(flows.expire(this.#now), fragments.expire(this.#now));
    if (expired >= MAX_EXPIRED) return 0;
    const due = Math.min(flows.due(this.#now), fragments.due(this.#now));
    this.#isTicking = due < Infinity;
    return this.#isTicking ? Math.min(Math.max(TICK, due), MAX_TICK) : undefined;
  }

  /**
   * Explains the decision about a packet in this direction, without any effect on the packet, flows, counters or rates.
   *
   * @param now Time of the decision (monotonic milliseconds). @default {the last batch's time}
   */
  explain(packet: Packet, direction: Direction, now: number = this.#now): Explanation {
    const { malformed } = packet;
    const tracker = this.#tracker;
    const finding = tracker.classify(packet, direction, now);
    const verdict = this.#decide(packet, finding, direction, now);
    packet.malformed = malformed;
    const { flow } = tracker;
    const isKnown = flow >= 0 && (finding === Finding.Established || finding === Finding.Related);
    return new Explanation(packet, direction, finding, verdict, this.#by, {
      rule: this.#rule,
      why: tracker.why,
      tracker: isKnown ? tracker : undefined,
      allowedBy: isKnown ? this.#labelOf(tracker.allowedBy[flow]!) : undefined,
    });
  }

  /** Formats the rules and defaults as text, one per line. */
  toString(): string {
    const [outbound, inbound] = this.#defaults;
    const rules = formatRules(this.#rules.rules.map(({ rule }) => rule));
    return `${rules === "" ? "" : `${rules}\n`}default outbound ${outbound}, inbound ${inbound}`;
  }

  /**
   * Returns the flows, with the rules and defaults that allowed them. Rates, counters and fragments are not saved. Idle times
   * are accurate to 10 s while no packets pass.
   */
  save(): SavedFirewall {
    // A restored state is kept until the first packet or tick.
    if (this.#saved !== undefined) return this.#saved;
    const { flows } = this.#tracker;
    return {
      format: FORMAT,
      labels: this.#labels,
      flows: Array.from(flows, (flow) => this.#tracker.save(flow, this.#now))
        .filter(({ idle, state }) => idle < TIMEOUTS[state]!),
    };
  }

  /**
   * Adds saved flows at the next packet or tick, except those allowed by a rule or default that this firewall does not
   * have.
   *
   * @throws {TypeError} when `state` does not come from a firewall; nothing is changed.
   */
  restore(state: unknown): void {
    this.#saved = readSaved(state);
  }

  #pass(batch: PacketBatch, context: StageContext, direction: Direction): void {
    const now = context.now;
    this.#begin(now);
    const { packets, length } = batch;
    const tracker = this.#tracker;
    const { index, count } = context.worker;
    const hasEstablishedRules = (this.#rules.states >> Finding.Established & 1) === 1;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const finding = tracker.classify(packet, direction, now);
      if (count > 1 && finding !== Finding.Malformed) {
        const owner = tracker.owner(count);
        if (owner !== index) {
          context.handOver(packet, owner);
          continue;
        }
      }
      if (finding === Finding.Established && !hasEstablishedRules) {
        tracker.commit(packet, finding, direction, now, 0);
        this.#count(tracker.allowedBy[tracker.flow]!, packet);
        continue;
      }
      this.#act(packet, finding, this.#decide(packet, finding, direction, now), direction, context);
    }
    if (!this.#isTicking && tracker.flows.size + tracker.fragments.size > 0) {
      this.#isTicking = true;
      context.wake();
    }
  }

  /** Decides about a packet, and sets `#by` and `#rule`. Changes nothing else. */
  #decide(packet: Packet, finding: Finding, direction: Direction, now: number): FirewallVerdict {
    this.#rule = undefined;
    if (finding >= Finding.Fragment) {
      this.#by = finding === Finding.Fragment
        ? "fragment"
        : finding === Finding.Orphan
        ? FirewallDrop.NoFirstFragment
        : FirewallDrop.Malformed;
      return finding === Finding.Fragment ? "allow" : "drop";
    }
    const ip = Ip.of(packet)!;
    if ((this.#rules.states >> finding & 1) === 1) {
      const rule = this.#rule = this.#rules.find(packet, ip, finding, direction, now);
      if (rule !== undefined) {
        this.#by = "rule";
        return rule.rule.verdict;
      }
    }
    if (finding === Finding.Invalid) {
      this.#by = FirewallDrop.Invalid;
      return "drop";
    }
    if (finding !== Finding.New) {
      this.#by = "flow";
      return "allow";
    }
    if (this.#passesNeighbors && isNeighborMessage(packet, ip, direction)) {
      this.#by = "neighbors";
      return "allow";
    }
    this.#by = "default";
    return this.#defaults[direction];
  }

  #act(
    packet: Packet,
    finding: Finding,
    verdict: FirewallVerdict,
    direction: Direction,
    context: StageContext,
  ): void {
    const tracker = this.#tracker;
    const rule = this.#rule;
    if (rule?.rate !== undefined) rule.rate.take(Ip.of(packet)!, context.now);
    const counter = this.#counterOf(direction);
    if (counter >= 0) this.#count(counter, packet);
    if (verdict === "allow") {
      tracker.commit(packet, finding, direction, context.now, counter);
      return;
    }
    tracker.refuse(packet, direction, context.now);
    const reason = rule !== undefined ? rule.reason : this.#by === "default" ? FirewallDrop.NoRule : this.#by;
    if (verdict === "drop") context.drop(packet, reason);
    else if (isTcp(packet)) this.#errors.reset(packet, context, reason, direction);
    else this.#errors.answer(packet, IcmpError.PortUnreachable, context, reason, 0, direction);
  }

  /** Index of the counter of the last decision; -1 for none. */
  #counterOf(direction: Direction): number {
    const first = this.#rules.rules.length;
    switch (this.#by) {
      case "rule":
        return this.#rule!.index;
      case "flow":
        return this.#tracker.allowedBy[this.#tracker.flow]!;
      case "default":
        return first + direction;
      case "neighbors":
        return first + 2;
      case "fragment":
        return first + 3;
      default:
        return -1;
    }
  }

  #labelOf(counter: number): string {
    const rule = this.#rules.rules[counter];
    return rule === undefined ? this.#labels[counter]! : `rule ${nameOf(rule)}`;
  }

  #count(counter: number, packet: Packet): void {
    this.#packets[counter]!++;
    this.#bytes[counter]! += packet.length;
  }

  #begin(now: number): void {
    this.#now = now;
    this.#restore(now);
  }

  #restore(now: number): void {
    if (this.#saved === undefined) return;
    const { labels, flows } = this.#saved;
    this.#saved = undefined;
    const places = labels.map((label) => this.#labels.indexOf(label));
    for (const flow of flows) {
      const allowedBy = places[flow.allowedBy]!;
      if (allowedBy >= 0) this.#tracker.restore({ ...flow, allowedBy }, now);
    }
  }
}

function nameOf({ index, rule: { name } }: CompiledRule): string {
  return name === undefined ? `${index + 1}` : `${index + 1} "${name}"`;
}

function isTcp(packet: Packet): boolean {
  return Ip.of(packet)!.protocol === Protocol.Tcp;
}
