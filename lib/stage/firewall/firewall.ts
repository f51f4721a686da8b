/**
 * A stateful firewall: what belongs to a flow that was let through passes; rules decide about all else, the first one
 * that matches.
 *
 *     packet ─► its flow ─┬─ known, or an error about one ─────────────────────────► onward
 *                         ├─ not of its connection, cut short, a stray fragment ───► dropped
 *                         └─ new ─► rules ─► neighbors ─► default ─┬─ allow ─► a flow is kept ─► onward
 *                                                                  └─ drop, reject ─► dropped, answered
 */

import { Direction, type Packet, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import { IcmpError, IcmpErrors } from "../../icmp/icmp_error.ts";
import { Ip, Protocol } from "../../wire/ip.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";
import { type Decision, Explanation } from "./_explanation.ts";
import { isNeighborTalk } from "./_neighbors.ts";
import { type CompiledRule, RuleSet } from "./_rule_set.ts";
import { FORMAT, readSaved, type SavedFirewall } from "./_saved.ts";
import { Finding, Tracker } from "./_tracker.ts";
import { TIMEOUTS } from "./flow_state.ts";
import { type FirewallRule, type FirewallVerdict, formatRules } from "./rule.ts";

// Implementation
const NAMES: OptionNames<FirewallOptions> = {
  rules: "list",
  default: "optional",
  capacity: "number",
  midStream: "boolean",
  neighbors: "boolean",
  errors: "optional",
  hashKey: "list",
};
const DEFAULT_NAMES: OptionNames<Exclude<FirewallOptions["default"], string | undefined>> = {
  outbound: "optional",
  inbound: "optional",
};
const CAPACITY = 65_536;
/** The shortest and the longest time from one tick to the next, as long as there are flows (ms). */
const TICK = 1000;
const MAX_TICK = 10_000;
/** Flows that one call of `expire` forgets at most, after which there may be more. */
const EXPIRED_LIMIT = 1024;
/** What else than rules lets packets pass, behind the rules in the counters. */
const OTHERS = ["outbound", "inbound", "neighbors", "fragments"] as const;

/** Options for {@linkcode Firewall}. */
export interface FirewallOptions {
  /** Who may pass, in this order: the first rule that matches decides. @default {[]} */
  readonly rules?: readonly FirewallRule[];
  /**
   * What becomes of new packets that no rule matches: in both directions, or in each.
   * @default {{ outbound: "allow", inbound: "drop" }}
   */
  readonly default?: FirewallVerdict | {
    readonly outbound?: FirewallVerdict;
    readonly inbound?: FirewallVerdict;
  };
  /** Flows that there is room for: about 180 bytes each. @default {65536} */
  readonly capacity?: number;
  /** Whether TCP connections are taken up whose beginning was not seen, with unknown windows. @default {false} */
  readonly midStream?: boolean;
  /** Whether neighbor discovery and multicast listener packets pass when no rule matches them. @default {true} */
  readonly neighbors?: boolean;
  /** Answers what is rejected. @default {new IcmpErrors()} */
  readonly errors?: IcmpErrors;
  /** The key of the table's hash (two 32-bit numbers): for tests. @default {random} */
  readonly hashKey?: readonly [number, number];
}

/** What a rule, or the default, has let through or kept out. */
export interface RuleCounters {
  /** Packets: those that it decided about, and of flows that it let through all that followed, errors included. */
  readonly packets: number;
  /** Their bytes. */
  readonly bytes: number;
}

/** A rule with its counters. */
export interface RuleReport extends RuleCounters {
  /** Its number, from 1. */
  readonly number: number;
  /** Its name, if it has one. */
  readonly name: string | undefined;
  /** What it says, as `formatRule` tells it. */
  readonly text: string;
}

/**
 * A stateful firewall. Without options it is a host's: all may go out, answers come in, and nothing else does.
 *
 * **Outbound** and **inbound** alike: a packet of a known flow passes without a look at the rules; so does an ICMP error
 * about one of its packets, against that packet's direction, and a fragment whose first one has passed. Flows are
 * those of TCP by RFC 9293's states and windows on both sides, a reset counting by RFC 5961; of UDP, of
 * ICMP echo and timestamp requests by their identifier, and of any other protocol by its addresses. What belongs to
 * no connection though it should, is dropped: TCP without a SYN or outside of its window, answers without a request,
 * errors about no flow, or to another host than that flow's. For the rest, the first rule that matches decides, then
 * the default. `reject` answers TCP by a reset and all else by port unreachable (RFC 1122 section 3.2.2.1).
 *
 * **States**: a rule is asked about `new` packets, unless its `state` says otherwise. Those of `established` flows, and
 * errors `related` to one, walk the rules that name that state and else pass; the `invalid` likewise, and are else
 * dropped. Cut-short packets, and fragments but the first, see no rule. ICMP messages that neither ask nor answer,
 * such as redirects, are new each time.
 *
 * **Neighbors**: over a tunnel there are no link addresses to be found, but a system may ask. With `neighbors` on, what RFC
 * 4861 lets only neighbors send (hop limit 255) passes: solicitations and advertisements of neighbors, router
 * solicitations outbound, router advertisements inbound; and multicast listener queries and reports (hop limit 1,
 * from `fe80::/10` or `::`). Redirects need a rule. A rule that matches comes first.
 *
 * **Options**: `rules`: none. `default`: outbound allow, inbound drop. `capacity`: 65,536 flows; a full table forgets
 * what came inbound and was not answered first, then other unanswered flows and those that are over, then answered ones,
 * and open connections and streams last; of unanswered ones the oldest of the opener (an IPv4 address, an IPv6 /64) with
 * the most, else the longest idle. `midStream`: off. `neighbors`: on. `errors`: those of its own.
 * Timers are Linux': SYN 120 s, handshake 60 s, connections 5 days, FIN 120 s, half-closed 60 s, last ACK 30 s, after
 * the end 120 s, after a reset 10 s; UDP 30 s, streams 120 s; ICMP 30 s; others 600 s.
 *
 * **Counters**: `rules`, `defaults`, `size`, `evicted`. Reasons: `rule NAME` or `rule NUMBER`, `no rule`, `invalid`,
 * `no first fragment`, `malformed`.
 *
 * **Limits**: fragments that come before their first one are dropped; reassemble in front of the firewall where that
 * happens. A later fragment that overlaps its first one is `malformed`; other overlaps are the receiver's affair (RFC
 * 5722). Windows are not checked in connections that both sides open at once, that are opened again within an old one
 * between the same ports, or of which a segment was fragmented. Transport checksums are not looked at. Of several
 * workers, one knows all packets between two addresses, and the others hand them over; rates and `capacity` hold for
 * each worker.
 * SCTP and DCCP are known by their ports alone.
 *
 * @example A web server that its administrator reaches
 * ```ts
 * import assert from "node:assert/strict";
 * import { Firewall } from "@warren/tunnel/firewall";
 *
 * const firewall = new Firewall({
 *   rules: [
 *     { name: "web", verdict: "allow", direction: "inbound", protocol: "tcp", dstPort: [80, 443] },
 *     { name: "ssh", verdict: "allow", direction: "inbound", protocol: "tcp", src: "10.9.0.0/24", dstPort: 22 },
 *     { verdict: "reject", direction: "inbound", protocol: ["tcp", "udp"] },
 *   ],
 * });
 * assert.equal(firewall.rules[1]!.text, "allow inbound tcp from 10.9.0.0/24 to port 22");
 * ```
 */
export class Firewall implements Stage {
  /** `firewall`. */
  readonly name = "firewall";
  readonly #rules: RuleSet;
  readonly #defaults: readonly [outbound: FirewallVerdict, inbound: FirewallVerdict];
  readonly #passesNeighbors: boolean;
  readonly #tracker: Tracker;
  readonly #errors: IcmpErrors;
  readonly #packets: Float64Array;
  readonly #bytes: Float64Array;
  /** What let flows through, by their notes. */
  readonly #labels: readonly string[];
  /** The time of the last batch or tick. */
  #now = 0;
  #saved: SavedFirewall | undefined;
  #isTicking = false;
  /** About the packet that was decided about last. */
  #by: Decision = "default";
  #rule: CompiledRule | undefined;

  /**
   * A firewall with these rules.
   *
   * @throws {TypeError} when an option is of another kind, or a rule has a wrong value, naming its number and field.
   * @throws {SyntaxError} the same, when a prefix or address does not parse.
   * @throws {RangeError} the same for a rate; when the capacity is not from 1 to 2 to the 24th.
   */
  constructor(options: FirewallOptions = {}) {
    checkNames("make a firewall", options, NAMES);
    const { rules = [], capacity = CAPACITY, midStream = false, neighbors = true, hashKey } = options;
    const { errors = new IcmpErrors() } = options;
    const { default: verdict = {} } = options;
    if (typeof verdict !== "string") checkNames("make a firewall: default", verdict, DEFAULT_NAMES);
    for (const [name, value] of Object.entries({ midStream, neighbors })) {
      if (typeof value === "boolean") continue;
      throw new TypeError(
        `Cannot make a firewall: ${name}: ${JSON.stringify(value)} is neither true nor false`,
      );
    }
    const { outbound = "allow", inbound = "drop" } = typeof verdict === "string"
      ? { outbound: verdict, inbound: verdict }
      : verdict;
    for (const one of [outbound, inbound]) {
      if (!["allow", "drop", "reject"].includes(one)) {
        throw new TypeError(`Cannot make a firewall: default: ${JSON.stringify(one)} is no verdict`);
      }
    }
    this.#rules = new RuleSet(rules);
    this.#defaults = [outbound, inbound];
    this.#passesNeighbors = neighbors;
    this.#tracker = new Tracker({ capacity, midStream, hashKey });
    this.#errors = errors;
    this.#labels = [
      ...this.#rules.rules.map(({ text }) => text),
      ...OTHERS.map((other, i) => i < 2 ? `default ${other} ${this.#defaults[i]}` : other),
    ];
    this.#packets = new Float64Array(this.#labels.length);
    this.#bytes = new Float64Array(this.#labels.length);
  }

  /** How many flows are known. */
  get size(): number {
    return this.#tracker.flows.size;
  }

  /** How many flows there is room for. */
  get capacity(): number {
    return this.#tracker.flows.capacity;
  }

  /** How many flows made room for others before their time. */
  get evicted(): number {
    return this.#tracker.evicted;
  }

  /** The rules with their counters; allocates. */
  get rules(): RuleReport[] {
    return this.#rules.rules.map(({ rule, text }, i) => ({
      number: i + 1,
      name: rule.name,
      text,
      packets: this.#packets[i]!,
      bytes: this.#bytes[i]!,
    }));
  }

  /** The counters of the defaults, of what neighbors say, and of fragments behind their first; allocates. */
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
    if (expired >= EXPIRED_LIMIT) return 0;
    const due = Math.min(flows.due(this.#now), fragments.due(this.#now));
    this.#isTicking = due < Infinity;
    return this.#isTicking ? Math.min(Math.max(TICK, due), MAX_TICK) : undefined;
  }

  /**
   * Says what would become of a packet that goes this way, by which rule, and why. Nothing is changed, counted or
   * taken: not the packet, no flow, no rate.
   *
   * @param now When (monotonic milliseconds): flows end, and rates fill up. @default {the last batch's time}
   */
  explain(packet: Packet, direction: Direction, now: number = this.#now): Explanation {
    const { malformed } = packet;
    const tracker = this.#tracker;
    const finding = tracker.look(packet, direction, now);
    const verdict = this.#decide(packet, finding, direction, now);
    packet.malformed = malformed;
    const { flow } = tracker;
    const isKnown = flow >= 0 && (finding === Finding.Established || finding === Finding.Related);
    return new Explanation(packet, direction, finding, verdict, this.#by, {
      rule: this.#rule,
      why: tracker.why,
      tracker: isKnown ? tracker : undefined,
      letThrough: isKnown ? this.#labelOf(tracker.notes[flow]!) : undefined,
    });
  }

  /** The rules and the defaults as text, a line for each. */
  toString(): string {
    const [outbound, inbound] = this.#defaults;
    const rules = formatRules(this.#rules.rules.map(({ rule }) => rule));
    return `${rules === "" ? "" : `${rules}\n`}default outbound ${outbound}, inbound ${inbound}`;
  }

  /**
   * The flows, and what let them through. Rates and counters are not saved, and neither are fragments. For how long
   * a flow has been idle is known to 10 s while nothing passes.
   */
  save(): SavedFirewall {
    // What was restored and has seen no packet since is still to be taken over.
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
   * Takes over the flows of another firewall, at the next packet or tick. Those that were let through by what this
   * one does not have are left out.
   *
   * @throws {TypeError} when it is no state of a firewall; nothing is then changed.
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
    const asksEstablished = (this.#rules.states >> Finding.Established & 1) === 1;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const finding = tracker.look(packet, direction, now);
      if (count > 1 && finding !== Finding.Malformed) {
        const owner = tracker.owner(count);
        if (owner !== index) {
          context.handOver(packet, owner);
          continue;
        }
      }
      if (finding === Finding.Established && !asksEstablished) {
        tracker.commit(packet, finding, direction, now, 0);
        this.#count(tracker.notes[tracker.flow]!, packet);
        continue;
      }
      this.#act(packet, finding, this.#decide(packet, finding, direction, now), direction, context);
    }
    if (!this.#isTicking && tracker.flows.size + tracker.fragments.size > 0) {
      this.#isTicking = true;
      context.wake();
    }
  }

  /** Finds what becomes of a packet, into `#by` and `#rule` too. Changes nothing else. */
  #decide(packet: Packet, finding: Finding, direction: Direction, now: number): FirewallVerdict {
    this.#rule = undefined;
    if (finding >= Finding.Fragment) {
      this.#by = finding === Finding.Fragment
        ? "fragment"
        : finding === Finding.Orphan
        ? "no first fragment"
        : "malformed";
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
      this.#by = "invalid";
      return "drop";
    }
    if (finding !== Finding.New) {
      this.#by = "flow";
      return "allow";
    }
    if (this.#passesNeighbors && isNeighborTalk(packet, ip, direction)) {
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
    const note = this.#noteOf(direction);
    if (note >= 0) this.#count(note, packet);
    if (verdict === "allow") {
      tracker.commit(packet, finding, direction, context.now, note);
      return;
    }
    tracker.refuse(packet, direction, context.now);
    const reason = rule !== undefined ? rule.reason : this.#by === "default" ? "no rule" : this.#by;
    if (verdict === "drop") context.drop(packet, reason);
    else if (isTcp(packet)) this.#errors.reset(packet, context, reason, direction);
    else this.#errors.answer(packet, IcmpError.PortUnreachable, context, reason, 0, direction);
  }

  /** Which counter a decision belongs to; -1 for none. */
  #noteOf(direction: Direction): number {
    const first = this.#rules.rules.length;
    switch (this.#by) {
      case "rule":
        return this.#rule!.index;
      case "flow":
        return this.#tracker.notes[this.#tracker.flow]!;
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

  #labelOf(note: number): string {
    const rule = this.#rules.rules[note];
    return rule === undefined ? this.#labels[note]! : `rule ${nameOf(rule)}`;
  }

  #count(note: number, packet: Packet): void {
    this.#packets[note]!++;
    this.#bytes[note]! += packet.length;
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
      const note = places[flow.note]!;
      if (note >= 0) this.#tracker.restore({ ...flow, note }, now);
    }
  }
}

function nameOf({ index, rule: { name } }: CompiledRule): string {
  return name === undefined ? `${index + 1}` : `${index + 1} "${name}"`;
}

function isTcp(packet: Packet): boolean {
  return Ip.of(packet)!.protocol === Protocol.Tcp;
}
