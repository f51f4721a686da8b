/**
 * A resolver on an address of the tunnel.
 *
 *     query ──► records ──► block lists ──► synthetic addresses ──► special names ──► cache ──► upstreams ··· held
 *                  │             │                   │                     │            │           ┊
 *     answer ◄─────┴─────────────┴───────────────────┴─────────────────────┴────────────┴─ tick() ◄─┘
 *
 * A name of a split domain gets no synthetic address, and has upstreams of its own.
 */

import type { Packet, PacketBatch, Stage, StageContext } from "../../core/mod.ts";
import { isFromHost } from "../../wire/unicast.ts";
import { IcmpErrors } from "../../icmp/icmp_error.ts";
import { Ip } from "../../wire/ip.ts";
import { Protocol } from "../../wire/protocol.ts";
import { Tcp } from "../../wire/tcp.ts";
import { Udp } from "../../wire/udp.ts";
import { Answer } from "./_answer.ts";
import { Cache } from "./_cache.ts";
import { checkOptions, type SplitDomain } from "./_checked_options.ts";
import { FakeIp } from "./fake_ip.ts";
import { InFlight } from "./_in_flight.ts";
import { BlockedNames, FakeNames } from "./_own_answers.ts";
import { type Query, UdpQuery } from "./_query.ts";
import { Route } from "./_route.ts";
import { SpecialNames } from "./_special_names.ts";
import { TcpServer } from "./_tcp_server.ts";
import { type DnsCounters, type DnsResolverOptions, type DnsUpstream, list } from "./resolver_options.ts";
import { Question, Rcode, SILENCE } from "./_message.ts";
import { isWithin } from "./name.ts";
import { type FoundRecords, joinAliases, Records } from "./_records.ts";

// Specification
const DNS_PORT = 53;
/** RFC 8767 section 4: the TTL of an answer that is too old (seconds). */
const STALE_TTL = 30;

// Implementation
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
 * asked, it is held. Over TCP, the resolver accepts connections, answers the queries in them and closes them when they
 * are idle (RFC 7766). Everything else passes untouched.
 *
 * **Inbound**: the same, for queries from the far end.
 *
 * **Options**: {@linkcode DnsResolverOptions}. The first source that knows a name answers: records, block lists, synthetic
 * addresses, special-use names, cache, upstreams.
 *
 * **Counters**: {@linkcode DnsResolver.counters}; drops: `not a query`, `repeated query`, `fragment of a query`,
 * `from port 0`, `from no host`, `bad checksum`, `no such connection`, `too many connections`, `no DNS over TCP`,
 * `super-packet of queries`, `pool empty`.
 *
 * **Memory**: up to `inFlight` questions, `waiting` queries, `connections` TCP connections with 8 KiB of queries each and
 * 8 MiB of answers in all, and the cache. A half-open connection takes none (RFC 4987 section 3.6). Clients share the
 * places: one that has more than others loses first, so none can take them all.
 *
 * **Limits**: nothing is validated: DNSSEC's records and AD are passed on as the upstream says. EDNS options go no further
 * than here (RFC 6891 section 6.1.1). An alias of `records` leads to the real addresses of its target, not to synthetic
 * ones; behind one, an answer of more than 256 records is SERVFAIL. Only the resolver's own addresses are served: programs
 * that ask other name servers are not caught. Each worker has a cache of its own; with synthetic addresses, worker 0
 * answers all queries and alone knows the names. Over TCP there is neither window scaling nor selective acknowledgment,
 * a query has 4,096 bytes at most, and connections are not kept over a reload.
 *
 * **Upstreams behind the tunnel** work where the far end is an address, and fail when the tunnel does. Where the far end is
 * a name that the system asks this resolver for, nothing comes up: the name needs the upstream, which needs the tunnel. An
 * upstream that is the resolver itself never answers.
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
    special: 0,
    cached: 0,
    stale: 0,
    asked: 0,
    joined: 0,
    repeated: 0,
    displaced: 0,
    failures: 0,
    badAnswers: 0,
    unanswered: 0,
    refused: 0,
    truncated: 0,
  };

  readonly #ipv4: readonly number[];
  readonly #ipv6: readonly Uint8Array[];
  readonly #upstreams: readonly DnsUpstream[];
  readonly #split: readonly SplitDomain[];
  readonly #records: Records;
  readonly #blocked: BlockedNames;
  readonly #fakeIp: FakeIp | undefined;
  readonly #fakes: FakeNames | undefined;
  readonly #cache: Cache;
  readonly #special: SpecialNames;
  readonly #limit: number;
  readonly #tcp: TcpServer;
  readonly #inFlight: InFlight;
  /** The numbers of upstreams, for their shares of the cache. */
  readonly #upstreamNumbers = new Map<DnsUpstream, number>();

  #now = 0;

  /** The query at hand, and the question that it comes to by aliases of one's own. */
  readonly #asked = new Question();
  readonly #target = new Question();
  /** The aliases of one's own that lead there. */
  #aliases: FoundRecords | undefined;
  /** Addresses and ports of the packet at hand. */
  readonly #route = new Route();

  /**
   * A resolver that has asked nobody yet.
   *
   * @throws {SyntaxError} when an address, a domain, a name or a record does not parse; {@linkcode TypeError} without an
   * address, for records that cannot be, and for what is not what an option takes; {@linkcode RangeError} when a number is out of its range.
   */
  constructor(options: DnsResolverOptions) {
    const { addresses, upstreams, split, answerLimit, places, tcp } = checkOptions(options);
    const { records = [], zones = [], fakeIp, cache = {} } = options;
    this.#ipv4 = addresses.filter(({ family }) => family === 4).map(({ bytes }) =>
      new DataView(bytes.buffer).getUint32(0)
    );
    this.#ipv6 = addresses.filter(({ family }) => family === 6).map(({ bytes }) => bytes);
    this.#upstreams = upstreams;
    this.#split = split;
    this.#limit = answerLimit;
    this.#records = new Records(typeof records === "string" ? [records] : records, list(zones));
    if (fakeIp !== undefined && !(fakeIp instanceof FakeIp)) {
      throw new TypeError("Cannot give synthetic addresses: fakeIp is no FakeIp: make one with new FakeIp()");
    }
    this.#fakeIp = fakeIp;
    this.#blocked = new BlockedNames(options);
    this.#fakes = fakeIp && new FakeNames(fakeIp);
    this.#cache = new Cache(cache === false ? { entries: 0 } : cache);
    this.#special = new SpecialNames(options.forwardSpecial ?? []);
    this.#tcp = new TcpServer(tcp, options.errors ?? new IcmpErrors(), this.#answerTcp);
    this.#inFlight = new InFlight(places, this.counters, {
      answered: (pending, answer, now) =>
        this.#cache.put(pending.key, answer, now, this.#ownerOf(pending.source, pending.upstream)),
      deliver: (query, answer, context) => {
        this.#read(query);
        this.#finish(query, answer, 0, OWN_TTLS, context);
      },
      giveUp: (query, key, refusal, context) => this.#giveUp(query, key, refusal, context),
    });
    for (const upstream of [...upstreams, ...split.flatMap(({ upstreams }) => upstreams)]) {
      this.#upstreamNumbers.set(upstream, this.#upstreamNumbers.size);
    }
  }

  /** How many answers the cache has. */
  get cacheSize(): number {
    return this.#cache.size;
  }

  /** How many questions are being asked. */
  get inFlight(): number {
    return this.#inFlight.size;
  }

  /** The number of TCP connections of clients. */
  get connections(): number {
    return this.#tcp.size;
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

  /** Passes on answers of upstreams, and turns to the next upstream where one is too late. */
  tick(context: StageContext): number | undefined {
    this.#now = context.now;
    const due = Math.min(this.#inFlight.tick(context), this.#tcp.tick(context));
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
    this.#inFlight.close();
    this.#tcp.close();
  }

  #serve(batch: PacketBatch, context: StageContext): void {
    this.#now = context.now;
    this.#fakeIp?.advance(context.now);
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
        if (tcp?.dstPort === DNS_PORT) this.#admitTcp(packet, tcp, context);
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
    if (packet.segmentSize === 0) this.#answerUdp(packet, udp, context);
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
      this.#answerUdp(query, Udp.of(query)!, context);
      if (isLast) return;
    }
  }

  #admitTcp(packet: Packet, tcp: Tcp, context: StageContext): void {
    if (this.#fakeIp !== undefined && context.worker.index !== 0) return context.handOver(packet, 0);
    this.#tcp.receive(packet, tcp, context);
  }

  readonly #answerTcp = (query: Query, context: StageContext): void => {
    const refusal = query.read(this.#asked);
    if (refusal === SILENCE) return query.drop("not a query", context);
    this.#answer(query, refusal, context);
  };

  #answerUdp(packet: Packet, udp: Udp, context: StageContext): void {
    const refusal = this.#asked.read(packet.bytes, udp.payloadOffset, udp.payloadLength);
    if (refusal === SILENCE) return context.drop(packet, "not a query");
    this.#answer(new UdpQuery(udp, context.direction, this.#limit, this.#route), refusal, context);
  }

  /** Answers the query at hand, or holds it. */
  #answer(query: Query, refusal: number, context: StageContext): void {
    const asked = this.#asked;
    if (refusal !== Rcode.NoError) {
      this.counters.refused++;
      return this.#sendEmpty(query, refusal, context);
    }
    this.counters.queries++;
    const found = this.#aliases = this.#records.find(asked);
    if (found !== undefined) {
      this.counters.records++;
      if (found.target === undefined) {
        const answer = Answer.make(asked, found.rcode, found.records, found.soa);
        return this.#send(query, answer, 0, OWN_TTLS, context);
      }
      this.#target.follow(asked, found.target);
      return this.#resolve(this.#target, query, context);
    }
    const own = this.#ownAnswer(asked, query);
    if (own !== undefined) return this.#send(query, own, 0, OWN_TTLS, context);
    this.#resolve(asked, query, context);
  }

  /** The answer for a name that is blocked, or has a synthetic address. */
  #ownAnswer(asked: Question, query: Query): Answer | undefined {
    const blocked = this.#blocked.find(asked);
    if (blocked !== undefined) {
      this.counters.blocked++;
      return blocked;
    }
    if (this.#fakes === undefined || this.#splitOf(asked) !== undefined) return undefined;
    const fake = this.#fakes.find(asked, query.source);
    if (fake === undefined) return undefined;
    if (fake.rcode === Rcode.ServFail) this.counters.unanswered++;
    else this.counters.fakes++;
    return fake;
  }

  #splitOf(asked: Question): SplitDomain | undefined {
    return this.#split.find(({ domain }) => isWithin(asked.name, asked.nameLength, domain));
  }

  /** Answers from what is known, or asks upstreams and holds the query. */
  #resolve(question: Question, query: Query, context: StageContext): void {
    const { now } = context;
    const { key } = question;
    const entry = this.#cache.get(key, now);
    const split = this.#splitOf(question);
    const upstreams = split?.upstreams ?? this.#upstreams;
    if (entry !== undefined && now < entry.until) {
      this.counters.cached++;
      const wantsMore = this.#cache.prefetches &&
        entry.until - now < (entry.until - entry.since) * PREFETCH_PART;
      // The query is gone when it is answered.
      const source = wantsMore ? query.source : "";
      this.#finish(query, entry.answer, ageOf(entry.since, now), OWN_TTLS, context);
      if (wantsMore && this.#inFlight.get(key) === undefined && !this.#inFlight.hasFailed(key, now)) {
        this.#inFlight.ask(key, question, upstreams, source, context);
      }
      return;
    }
    // Who names an upstream for all names has not named these.
    const isNamed = split !== undefined && split.domain.length > 1;
    const special = isNamed ? undefined : this.#special.find(question);
    if (special !== undefined) {
      this.counters.special++;
      return this.#finish(query, special, 0, OWN_TTLS, context);
    }
    let pending = this.#inFlight.get(key);
    if (pending?.isRepeatedBy(query)) {
      this.counters.repeated++;
      return query.drop("repeated query", context);
    }
    const isJoining = pending !== undefined;
    if (!isJoining) {
      if (this.#inFlight.hasFailed(key, now)) return this.#giveUp(query, key, undefined, context);
      if (!question.recursionDesired || upstreams.length === 0) {
        this.counters.refused++;
        return this.#sendEmpty(query, Rcode.Refused, context);
      }
      pending = this.#inFlight.ask(key, question, upstreams, query.source, context);
    }
    if (pending === undefined || !this.#inFlight.wait(pending, query, context)) {
      return this.#giveUp(query, key, undefined, context);
    }
    if (isJoining) this.counters.joined++;
  }

  /** Whose share of the cache an answer is counted in. */
  #ownerOf(source: string, upstream: DnsUpstream | undefined): string {
    const number = upstream === undefined ? 0 : this.#upstreamNumbers.get(upstream) ?? 0;
    return source + String.fromCharCode(number);
  }

  /** Makes a query the one at hand. */
  #read(query: Query): void {
    query.read(this.#asked);
    this.#aliases = this.#records.find(this.#asked);
  }

  /** Answers a query with what is old, with an upstream's refusal, or with SERVFAIL. */
  #giveUp(query: Query, key: string, refusal: Answer | undefined, context: StageContext): void {
    this.#read(query);
    const old = this.#cache.get(key, context.now);
    if (old !== undefined) {
      this.counters.stale++;
      return this.#finish(query, old.answer, ageOf(old.since, context.now), STALE_TTL, context);
    }
    this.counters.unanswered++;
    if (refusal !== undefined) return this.#finish(query, refusal, 0, OWN_TTLS, context);
    this.#sendEmpty(query, Rcode.ServFail, context);
  }

  /** Answers the query at hand, behind the aliases of `records` that led to the answer. */
  #finish(query: Query, answer: Answer, age: number, ttl: number, context: StageContext): void {
    const asked = this.#asked;
    const blocked = this.#blocked.findAlias(asked, answer);
    if (blocked !== undefined) {
      this.counters.blocked++;
      return this.#send(query, blocked, 0, OWN_TTLS, context);
    }
    const aliases = this.#aliases;
    if (aliases === undefined) return this.#send(query, answer, age, ttl, context);
    // It takes milliseconds to join a long answer, which would not fit behind its aliases.
    if (answer.choose(asked, query.room(asked)) === undefined) {
      this.counters.truncated++;
      return this.#sendEmpty(query, answer.rcode, context, true);
    }
    const whole = joinAliases(asked, aliases, answer, age, ttl);
    if (whole !== undefined) return this.#send(query, whole, 0, OWN_TTLS, context);
    this.counters.badAnswers++;
    this.#sendEmpty(query, Rcode.ServFail, context);
  }

  /** Sends an answer to the query at hand. */
  #send(query: Query, answer: Answer, age: number, ttl: number, context: StageContext): void {
    const asked = this.#asked;
    const part = answer.choose(asked, query.room(asked));
    if (part === undefined) {
      this.counters.truncated++;
      return this.#sendEmpty(query, answer.rcode, context, true);
    }
    const { bytes, start } = query.open();
    query.send(answer.write(asked, part, bytes, start, age, ttl), context);
  }

  #sendEmpty(query: Query, rcode: number, context: StageContext, isTruncated = false): void {
    const { bytes, start } = query.open();
    query.send(this.#asked.writeEmpty(rcode, bytes, start, isTruncated), context);
  }
}

/** In seconds. */
function ageOf(since: number, now: number): number {
  return Math.floor((now - since) / 1000);
}
