/**
 * A resolver on an address of the tunnel.
 *
 *     query ──► records ──► block lists ──► synthetic addresses ──► cache ──► upstreams ··· the query is held
 *                  │             │                   │                │            ┊
 *     answer ◄─────┴─────────────┴───────────────────┴────────────────┴─ tick() ◄──┘
 *
 * A name of a split domain passes by the synthetic addresses and has upstreams of its own.
 */

import { parseAddress } from "../address.ts";
import {
  type Direction,
  opposite,
  type Packet,
  type PacketBatch,
  type Stage,
  type StageContext,
} from "../core/mod.ts";
import { isFromHost } from "../_unicast.ts";
import { IcmpErrors } from "../icmp_error.ts";
import { Ip } from "../ip.ts";
import { checkNames, type OptionNames } from "../options.ts";
import { Protocol } from "../protocol.ts";
import { Tcp } from "../tcp.ts";
import { Udp } from "../udp.ts";
import { Cache } from "./_cache.ts";
import { FakeIp } from "./fake_ip.ts";
import { BlockedNames, FakeNames } from "./_own_answers.ts";
import { Pending } from "./_pending.ts";
import { Route } from "./_route.ts";
import {
  checkRange,
  type DnsCounters,
  type DnsResolverOptions,
  type DnsUpstream,
  list,
} from "./resolver_options.ts";
import { Answer } from "./_answer.ts";
import { EDNS_SIZE, Question, Rcode, SILENCE } from "./_message.ts";
import { isWithin, parseName } from "./_name.ts";
import { type FoundRecords, joinAliases, Records } from "./_records.ts";

// Specification
const DNS_PORT = 53;
/** RFC 8767 section 4: the TTL of an answer that is too old (seconds). */
const STALE_TTL = 30;
const MAX_TTL = 0x7fffffff;

// Implementation
const NAMES: OptionNames<DnsResolverOptions> = {
  address: "needed",
  upstream: "optional",
  split: "optional",
  records: "optional",
  zones: "optional",
  block: "optional",
  allow: "optional",
  blockAnswer: "optional",
  blockTtl: "optional",
  fakeIp: "optional",
  cache: "optional",
  timeout: "optional",
  inFlight: "optional",
  waiting: "optional",
  answerLimit: "optional",
  errors: "optional",
};
const TIMEOUT = 2000;
const IN_FLIGHT = 256;
const WAITING = 512;
/** Nobody is asked again so soon after a failure (RFC 9520 section 3.2: a second at least; milliseconds). */
const FAILURE_TIME = 1000;
const MOST_FAILURES = 1000;
/** That an answer's records keep the TTLs that they have. */
const OWN_TTLS = -1;
/** How often the time is read while there are answers whose age `save` has to tell (milliseconds). */
const CLOCK = 1000;
/** The part of its time that an answer has left when it is asked for again. */
const PREFETCH_PART = 0.1;

/**
 * Answers DNS queries to addresses of the tunnel.
 *
 * **Outbound**: a query over UDP to port 53 of an address becomes its answer, which turns round; while an upstream is
 * asked, it is held. A TCP connection to that port is refused with RST, at the rate of `errors`. Everything else passes
 * untouched.
 *
 * **Inbound**: the same, for queries from the far end.
 *
 * **Options**: {@linkcode DnsResolverOptions}. The first source that knows a name answers: records, block lists, synthetic
 * addresses, cache, upstreams.
 *
 * **Counters**: {@linkcode DnsResolver.counters}; drops: `not a query`, `repeated query`, `fragment of a query`,
 * `from port 0`, `from no host`, `bad checksum`, `no DNS over TCP`, `super-packet of queries`, `pool empty`.
 *
 * **Limits**: queries over TCP are refused, so an answer whose own records are beyond the client's EDNS size or
 * `answerLimit` cannot be had. Nothing is validated: DNSSEC's records and AD are passed on as the upstream says. EDNS
 * options go no further than here (RFC 6891 section 6.1.1). An alias of `records` leads to the real addresses of its
 * target, not to synthetic ones. Upstreams must not be reached through the tunnel. Each worker has a cache of its own;
 * with synthetic addresses, worker 0 answers all queries and alone knows the names.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { BlockList, DnsResolver } from "@warren/tunnel/dns";
 *
 * const resolver = new DnsResolver({
 *   address: ["10.9.0.53", "fd09::53"],
 *   records: ["router.lan A 10.9.0.1"],
 *   block: new BlockList(["ads.example"]),
 *   upstream: { query: () => Promise.reject(new Error("nobody is there")) },
 * });
 * assert.equal(resolver.name, "dns");
 * ```
 */
export class DnsResolver implements Stage {
  /** What statistics call it. */
  readonly name = "dns";
  /** What it has counted. */
  readonly counters: DnsCounters = {
    queries: 0,
    records: 0,
    blocked: 0,
    fakes: 0,
    cached: 0,
    stale: 0,
    asked: 0,
    joined: 0,
    repeated: 0,
    failures: 0,
    badAnswers: 0,
    unanswered: 0,
    refused: 0,
    truncated: 0,
  };

  readonly #ipv4: readonly number[];
  readonly #ipv6: readonly Uint8Array[];
  readonly #upstreams: readonly DnsUpstream[];
  readonly #split: readonly { domain: Uint8Array; upstreams: readonly DnsUpstream[] }[];
  readonly #records: Records;
  readonly #blocked: BlockedNames;
  readonly #fakeIp: FakeIp | undefined;
  readonly #fakes: FakeNames | undefined;
  readonly #cache: Cache;
  readonly #timeout: number;
  readonly #inFlight: number;
  readonly #waitingLimit: number;
  readonly #limit: number;
  readonly #errors: IcmpErrors;

  readonly #pending = new Map<string, Pending>();
  #arrivals: Pending[] = [];
  #waiting = 0;
  /** When a question failed, by its key. */
  readonly #failures = new Map<string, number>();
  #context: StageContext | undefined;
  #now = 0;
  #isClosed = false;

  /** The query at hand, and the question that it comes to by aliases of one's own. */
  readonly #asked = new Question();
  readonly #target = new Question();
  /** The aliases of one's own that lead there. */
  #aliases: FoundRecords | undefined;
  /** Where the packet at hand came from and went to. */
  readonly #route = new Route();

  /**
   * A resolver that has asked nobody yet.
   *
   * @throws {SyntaxError} when an address, a domain, a name or a record does not parse; {@linkcode TypeError} without an
   * address, for records that cannot be, and for what is not what an option takes; {@linkcode RangeError} when a number is out of its range.
   */
  constructor(options: DnsResolverOptions) {
    checkNames("resolve names", options, NAMES);
    const {
      address,
      upstream = [],
      split = {},
      records = [],
      zones = [],
      fakeIp,
      cache = {},
    } = options;
    const addresses = list(address).map(parseAddress);
    if (addresses.length === 0) throw new TypeError("Cannot answer queries: the resolver has no address");
    this.#ipv4 = addresses.filter(({ family }) => family === 4).map(({ bytes }) =>
      new DataView(bytes.buffer).getUint32(0)
    );
    this.#ipv6 = addresses.filter(({ family }) => family === 6).map(({ bytes }) => bytes);
    this.#upstreams = upstreamsOf(upstream);
    this.#split = Object.entries(split)
      .map(([domain, upstreams]) => ({ domain: parseName(domain), upstreams: upstreamsOf(upstreams) }))
      .sort((a, b) => b.domain.length - a.domain.length);
    this.#records = new Records(typeof records === "string" ? [records] : records, list(zones));
    if (fakeIp !== undefined && !(fakeIp instanceof FakeIp)) {
      throw new TypeError("Cannot give synthetic addresses: fakeIp is no FakeIp: make one with new FakeIp()");
    }
    this.#fakeIp = fakeIp;
    this.#blocked = new BlockedNames(options);
    this.#fakes = fakeIp && new FakeNames(fakeIp);
    this.#cache = new Cache(cache === false ? { entries: 0 } : cache);
    this.#timeout = checkRange("timeout", options.timeout ?? TIMEOUT, 1, MAX_TTL);
    this.#inFlight = checkRange("inFlight", options.inFlight ?? IN_FLIGHT, 1, 65_536);
    this.#waitingLimit = checkRange("waiting", options.waiting ?? WAITING, 1, 65_536);
    this.#errors = options.errors ?? new IcmpErrors();
    this.#limit = checkRange("answerLimit", options.answerLimit ?? EDNS_SIZE, 512, 1452);
  }

  /** How many answers the cache has. */
  get cacheSize(): number {
    return this.#cache.size;
  }

  /** How many questions are being asked. */
  get inFlight(): number {
    return this.#pending.size;
  }

  /** Whether an upstream has yet to answer. */
  get isWaiting(): boolean {
    return this.inFlight > 0;
  }

  /** Queries from this machine. */
  outbound(batch: PacketBatch, context: StageContext): void {
    this.#serve(batch, context);
  }

  /** Queries from the far end. */
  inbound(batch: PacketBatch, context: StageContext): void {
    this.#serve(batch, context);
  }

  /** Gives upstreams' answers on, and turns to the next upstream where one is too late. */
  tick(context: StageContext): number | undefined {
    this.#context = context;
    this.#now = context.now;
    const arrivals = this.#arrivals;
    this.#arrivals = [];
    for (const pending of arrivals) this.#look(pending, context);
    let due = Infinity;
    for (const pending of this.#pending.values()) {
      if (pending.deadline <= context.now) this.#fail(pending, context);
      if (pending.deadline < due) due = pending.deadline;
    }
    const wait = this.#cache.size > 0 ? CLOCK : undefined;
    return due === Infinity ? wait : Math.min(wait ?? Infinity, Math.max(0, due - context.now));
  }

  /** The cache, and the names with synthetic addresses. */
  save(): unknown {
    return { cache: this.#cache.save(this.#now), fakeIp: this.#fakeIp?.save() ?? null };
  }

  /**
   * Takes over what {@linkcode DnsResolver.save} gave. Answers are as old as they were then.
   *
   * @throws {TypeError} when it is something else; nothing has changed then.
   */
  restore(state: unknown): void {
    const { cache, fakeIp } = (state ?? {}) as { cache?: unknown; fakeIp?: unknown };
    if (fakeIp === undefined || (fakeIp === null) !== (this.#fakeIp === undefined)) {
      throw new TypeError("Cannot restore a resolver: the state is not that of one with these options");
    }
    const restoreCache = this.#cache.read(cache, this.#now);
    this.#fakeIp?.restore(fakeIp);
    restoreCache();
  }

  /** Aborts what is being asked. */
  close(): void {
    this.#isClosed = true;
    for (const pending of this.#pending.values()) pending.abort();
    this.#pending.clear();
    this.#arrivals = [];
  }

  #serve(batch: PacketBatch, context: StageContext): void {
    this.#context = context;
    this.#now = context.now;
    const { packets, length } = batch;
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const ip = Ip.of(packet);
      if (ip === undefined || !this.#isHere(ip)) continue;
      if (ip.protocol === Protocol.Udp) {
        const udp = Udp.of(packet);
        if (udp?.dstPort === DNS_PORT) this.#admit(packet, udp, context);
      } else if (ip.protocol === Protocol.Tcp) {
        const tcp = Tcp.of(packet);
        if (tcp?.dstPort === DNS_PORT) this.#errors.reset(packet, context, "no DNS over TCP");
      }
    }
  }

  #isHere(ip: Ip): boolean {
    if (ip.version === 4) return this.#ipv4.includes(ip.dst);
    const { dst } = ip;
    for (const address of this.#ipv6) {
      let i = 0;
      while (i < 16 && address[i] === dst[i]) i++;
      if (i === 16) return true;
    }
    return false;
  }

  #admit(packet: Packet, udp: Udp, context: StageContext): void {
    if (!isFromHost(udp.ip)) return context.drop(packet, "from no host");
    if (udp.ip.isFragment) return context.drop(packet, "fragment of a query");
    // RFC 768: nobody can be answered there.
    if (udp.srcPort === 0) return context.drop(packet, "from port 0");
    if (!udp.checksumValid) return context.drop(packet, "bad checksum");
    // Names get addresses in one place.
    if (this.#fakeIp !== undefined && context.worker.index !== 0) return context.handOver(packet, 0);
    if (packet.segmentSize === 0) this.#answer(packet, udp, context);
    else this.#cut(packet, udp, context);
  }

  /** Makes queries of a super-packet's segments; the last one is what is left of it. */
  #cut(packet: Packet, udp: Udp, context: StageContext): void {
    const { segmentSize, from, to, mark } = packet;
    let at = udp.payloadOffset;
    const end = at + udp.payloadLength;
    if (!(segmentSize >= 1) || end - at > segmentSize * 64) {
      return context.drop(packet, "super-packet of queries");
    }
    for (;; at += segmentSize) {
      this.#route.read(udp);
      const length = Math.min(segmentSize, end - at);
      const isLast = at + length >= end;
      const query = isLast ? packet : context.take(length);
      if (query === undefined) return context.drop(packet, "pool empty");
      if (isLast) query.reset(length);
      query.bytes.copyWithin(query.offset, at, at + length);
      query.from = from;
      query.to = to;
      query.mark = mark;
      this.#route.wrap(query);
      this.#answer(query, Udp.of(query)!, context);
      if (isLast) return;
    }
  }

  /** Answers a query, or holds it. */
  #answer(packet: Packet, udp: Udp, context: StageContext): void {
    const asked = this.#asked;
    const { direction } = context;
    const refusal = asked.read(packet.bytes, udp.payloadOffset, udp.payloadLength);
    if (refusal === SILENCE) return context.drop(packet, "not a query");
    this.#route.read(udp);
    if (refusal !== Rcode.NoError) {
      this.counters.refused++;
      return this.#sendEmpty(packet, direction, refusal, context);
    }
    this.counters.queries++;
    const found = this.#aliases = this.#records.find(asked);
    if (found !== undefined) {
      this.counters.records++;
      if (found.target === undefined) {
        const answer = Answer.make(asked, found.rcode, found.records, found.soa);
        return this.#send(packet, direction, answer, 0, OWN_TTLS, context);
      }
      this.#target.follow(asked, found.target);
      return this.#resolve(this.#target, packet, udp, context);
    }
    const own = this.#ownAnswer(asked);
    if (own !== undefined) return this.#send(packet, direction, own, 0, OWN_TTLS, context);
    this.#resolve(asked, packet, udp, context);
  }

  /** What is said of names that are blocked, or have synthetic addresses. */
  #ownAnswer(asked: Question): Answer | undefined {
    const blocked = this.#blocked.find(asked);
    if (blocked !== undefined) {
      this.counters.blocked++;
      return blocked;
    }
    if (this.#fakes === undefined || this.#splitOf(asked) !== undefined) return undefined;
    const fake = this.#fakes.find(asked);
    if (fake !== undefined) this.counters.fakes++;
    return fake;
  }

  #splitOf(asked: Question): readonly DnsUpstream[] | undefined {
    for (const { domain, upstreams } of this.#split) {
      if (isWithin(asked.name, asked.nameLength, domain)) return upstreams;
    }
    return undefined;
  }

  /** Answers from the cache, or has the question asked and holds the query. */
  #resolve(question: Question, packet: Packet, udp: Udp, context: StageContext): void {
    const { now, direction } = context;
    const { key } = question;
    const entry = this.#cache.get(key, now);
    if (entry !== undefined && now < entry.until) {
      this.counters.cached++;
      const wantsMore = this.#cache.prefetches &&
        entry.until - now < (entry.until - entry.since) * PREFETCH_PART;
      const age = Math.floor((now - entry.since) / 1000);
      this.#finish(packet, direction, entry.answer, age, OWN_TTLS, context);
      if (wantsMore && !this.#pending.has(key) && !this.#hasFailed(key)) this.#ask(key, question, context);
      return;
    }
    const pending = this.#pending.get(key);
    if (pending !== undefined) {
      if (pending.isRepeatedBy(packet, udp)) {
        this.counters.repeated++;
        return context.drop(packet, "repeated query");
      }
      if (this.#waiting < this.#waitingLimit) this.counters.joined++;
      return this.#wait(pending, packet, context);
    }
    if (this.#hasFailed(key)) {
      return this.#giveUp(key, packet, direction, undefined, context);
    }
    if (!question.recursionDesired || (this.#splitOf(question) ?? this.#upstreams).length === 0) {
      this.counters.refused++;
      return this.#sendEmpty(packet, direction, Rcode.Refused, context);
    }
    const asking = this.#ask(key, question, context);
    if (asking === undefined) return this.#giveUp(key, packet, direction, undefined, context);
    this.#wait(asking, packet, context);
  }

  /** Whether a question has failed just now. */
  #hasFailed(key: string): boolean {
    return this.#now - (this.#failures.get(key) ?? -Infinity) < FAILURE_TIME;
  }

  #wait(pending: Pending, packet: Packet, context: StageContext): void {
    if (this.#waiting >= this.#waitingLimit) {
      return this.#giveUp(pending.key, packet, context.direction, undefined, context);
    }
    this.#waiting++;
    pending.waiting.push({ packet, direction: context.direction });
    context.hold(packet);
  }

  /** Begins to ask; `undefined` when too much is being asked, and after the end. */
  #ask(key: string, question: Question, context: StageContext): Pending | undefined {
    if (this.#isClosed || this.#pending.size >= this.#inFlight) return undefined;
    const pending = new Pending(key, question, this.#splitOf(question) ?? this.#upstreams);
    this.#pending.set(key, pending);
    this.#askNext(pending, context);
    return pending;
  }

  /** Asks the next upstream of a question; returns whether there is one. */
  #askNext(pending: Pending, context: StageContext): boolean {
    if (!pending.askNext(context.now + this.#timeout, this.#arrive)) return false;
    this.counters.asked++;
    // For the deadline.
    context.wake();
    return true;
  }

  readonly #arrive = (pending: Pending): void => {
    if (this.#isClosed) return;
    this.#arrivals.push(pending);
    this.#context?.wake();
  };

  /** Looks at what has arrived. */
  #look(pending: Pending, context: StageContext): void {
    // It may have been too late meanwhile.
    if (!pending.hasArrived) return;
    const answer = pending.look();
    if (answer === "bad") this.counters.badAnswers++;
    const rcode = answer instanceof Answer ? answer.rcode : Rcode.ServFail;
    if (!(answer instanceof Answer) || rcode !== Rcode.NoError && rcode !== Rcode.NxDomain) {
      if (answer instanceof Answer) pending.refusal = answer;
      return this.#fail(pending, context);
    }
    this.#pending.delete(pending.key);
    this.#failures.delete(pending.key);
    this.#cache.put(pending.key, answer, context.now);
    for (const { packet, direction } of this.#release(pending)) {
      this.#reread(packet);
      this.#finish(packet, direction, answer, 0, OWN_TTLS, context);
    }
  }

  /** An upstream has failed: the next one's turn, or the end. */
  #fail(pending: Pending, context: StageContext): void {
    this.counters.failures++;
    if (this.#askNext(pending, context)) return;
    this.#pending.delete(pending.key);
    pending.deadline = Infinity;
    this.#failures.delete(pending.key);
    this.#failures.set(pending.key, context.now);
    if (this.#failures.size > MOST_FAILURES) this.#failures.delete(this.#failures.keys().next().value!);
    for (const { packet, direction } of this.#release(pending)) {
      this.#reread(packet);
      this.#giveUp(pending.key, packet, direction, pending.refusal, context);
    }
  }

  #release(pending: Pending): Pending["waiting"] {
    this.#waiting -= pending.waiting.length;
    return pending.waiting;
  }

  /** Reads a query again that was held. */
  #reread(packet: Packet): void {
    const udp = Udp.of(packet)!;
    this.#route.read(udp);
    this.#asked.read(packet.bytes, udp.payloadOffset, udp.payloadLength);
    this.#aliases = this.#records.find(this.#asked);
  }

  /** Answers the query at hand with what is old, with what an upstream said of its failure, or with SERVFAIL. */
  #giveUp(
    key: string,
    packet: Packet,
    direction: Direction,
    refusal: Answer | undefined,
    context: StageContext,
  ): void {
    const old = this.#cache.get(key, context.now);
    if (old !== undefined) {
      this.counters.stale++;
      const age = Math.floor((context.now - old.since) / 1000);
      return this.#finish(packet, direction, old.answer, age, STALE_TTL, context);
    }
    this.counters.unanswered++;
    if (refusal !== undefined) return this.#finish(packet, direction, refusal, 0, OWN_TTLS, context);
    this.#sendEmpty(packet, direction, Rcode.ServFail, context);
  }

  /** Gives an answer to the query at hand, behind the aliases of one's own that led to it. */
  #finish(
    packet: Packet,
    direction: Direction,
    answer: Answer,
    age: number,
    ttl: number,
    context: StageContext,
  ): void {
    const blocked = this.#blocked.findAlias(this.#asked, answer);
    if (blocked !== undefined) {
      this.counters.blocked++;
      return this.#send(packet, direction, blocked, 0, OWN_TTLS, context);
    }
    const aliases = this.#aliases;
    if (aliases === undefined) return this.#send(packet, direction, answer, age, ttl, context);
    // It takes milliseconds to join a long answer, which would not fit behind its aliases.
    if (!answer.fits(this.#asked, Math.min(this.#asked.limit, this.#limit))) {
      this.counters.truncated++;
      return this.#sendEmpty(packet, direction, answer.rcode, context, true);
    }
    const whole = joinAliases(this.#asked, aliases, answer, age, ttl);
    if (whole !== undefined) return this.#send(packet, direction, whole, 0, OWN_TTLS, context);
    this.counters.badAnswers++;
    this.#sendEmpty(packet, direction, Rcode.ServFail, context);
  }

  /** Turns the query at hand into its answer. */
  #send(
    packet: Packet,
    direction: Direction,
    answer: Answer,
    age: number,
    ttl: number,
    context: StageContext,
  ): void {
    const asked = this.#asked;
    this.#route.turn(packet);
    const room = Math.min(asked.limit, this.#limit);
    if (!answer.fits(asked, room)) this.counters.truncated++;
    packet.length = answer.write(asked, packet.bytes, packet.offset, room, age, ttl);
    this.#emit(packet, direction, context);
  }

  #sendEmpty(
    packet: Packet,
    direction: Direction,
    rcode: number,
    context: StageContext,
    isTruncated = false,
  ): void {
    this.#route.turn(packet);
    packet.length = this.#asked.writeEmpty(rcode, packet.bytes, packet.offset, isTruncated);
    this.#emit(packet, direction, context);
  }

  #emit(packet: Packet, direction: Direction, context: StageContext): void {
    this.#route.wrap(packet);
    context.emit(packet, opposite(direction));
  }
}

function upstreamsOf(given: DnsUpstream | readonly DnsUpstream[]): readonly DnsUpstream[] {
  const upstreams = list(given);
  for (const upstream of upstreams) {
    if (typeof upstream?.query === "function") continue;
    throw new TypeError(
      `Cannot ask ${
        JSON.stringify(upstream)
      }: it has no query(): give an upstream such as parseUpstream("192.0.2.1")`,
    );
  }
  return upstreams;
}
