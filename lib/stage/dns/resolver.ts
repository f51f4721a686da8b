/**
 * DNS resolver on addresses of the tunnel.
 *
 *     query ──► records ──► block lists ──► synthetic addresses ──► special names ──► cache ──► upstreams ··· held
 *                  │             │                   │                     │            │           ┊
 *     answer ◄─────┴─────────────┴───────────────────┴─────────────────────┴────────────┴─ tick() ◄─┘
 *
 * Names of a split domain get no synthetic addresses, and go to the domain's own upstreams.
 */

import { DnsDrop } from "./_dns_drop.ts";
import type { PacketBatch, Stage, StageContext } from "../../core/mod.ts";
import { IcmpErrors } from "../../icmp/icmp_error.ts";
import { Ip } from "../../wire/ip.ts";
import { Protocol } from "../../wire/protocol.ts";
import { Tcp } from "../../wire/tcp.ts";
import { Udp } from "../../wire/udp.ts";
import { Answer } from "./_answer.ts";
import { Cache } from "./_cache.ts";
import { checkDnsOptions, type SplitDomain } from "./_checked_options.ts";
import type { FakeIp } from "./fake_ip.ts";
import { InFlight } from "./_in_flight.ts";
import { BlockedNames, FakeNames } from "./_own_answers.ts";
import type { Query } from "./_query.ts";
import { SpecialNames } from "./_special_names.ts";
import { TcpServer } from "./_tcp_server.ts";
import { UdpServer } from "./_udp_server.ts";
import { type DnsCounters, type DnsResolverOptions, type DnsUpstream, list } from "./resolver_options.ts";
import { NO_ANSWER, Question, Rcode } from "./_message.ts";
import { isWithin } from "./name.ts";
import { type FoundRecords, joinAliases, Records } from "./_records.ts";

// Specification
const DNS_PORT = 53;
/** TTL of a stale answer (seconds; RFC 8767 section 4). */
const STALE_TTL = 30;

// Implementation
/** In place of a TTL: the records of the answer keep theirs. */
const OWN_TTLS = -1;
/** Maximum interval of ticks while the cache holds answers: `save` takes their age from the last tick (milliseconds). */
const CLOCK = 1000;
/** Remaining share of an answer's lifetime below which a query prefetches it. */
const PREFETCH_PART = 0.1;

/**
 * DNS resolver on addresses of the tunnel, over UDP and TCP (RFC 1035, RFC 7766). The folder's README has the details.
 *
 * **Outbound, inbound**: a query to port 53 of an address becomes its answer and turns round; it is held while an
 * upstream is asked. All other packets pass.
 * **Options**: {@linkcode DnsResolverOptions}. **Counters**: {@linkcode DnsCounters}.
 * **Drops**: {@linkcode DnsDrop}.
 * **Memory**: the cache, and places for questions, queries and connections that clients share; 8 KiB of queries per TCP
 * connection and 8 MiB of answers in all.
 * **Limits**: no DNSSEC validation; no TCP window scaling or selective acknowledgment.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { openTunnel } from "@warren/tunnel";
 * import { PacketPool } from "@warren/tunnel/core";
 * import { decodeMessage, DnsResolver, encodeMessage } from "@warren/tunnel/dns";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { MemoryDevice } from "@warren/tunnel/memory";
 * import { Udp } from "@warren/tunnel/udp";
 *
 * const resolver = new DnsResolver({ address: "10.9.0.53", records: "router.lan A 10.9.0.1" });
 * const [device, host] = MemoryDevice.pair();
 * await using tunnel = await openTunnel({ device, stages: [resolver] });
 * await using client = await openTunnel({ device: host });
 * tunnel.run().catch(() => {}); // it fails when the client closes its device
 *
 * const query = new PacketPool().from(encodeMessage({ questions: [{ name: "router.lan", type: "A" }] }))!;
 * Udp.encode(query, { srcPort: 5000, dstPort: 53 });
 * Ipv4.encode(query, { src: 0x0a090002, dst: 0x0a090035, protocol: 17 });
 * client.send(query.data);
 * for await (const [packet] of client) {
 *   assert.equal(decodeMessage(Udp.of(packet!)!.payload)?.answers?.[0]?.data, "10.9.0.1");
 *   break;
 * }
 * ```
 */
export class DnsResolver implements Stage {
  /** Name in statistics. */
  readonly name = "dns";
  /** Counters since the start. */
  readonly counters: DnsCounters = {
    queries: 0,
    records: 0,
    blocked: 0,
    fakes: 0,
    special: 0,
    cached: 0,
    stale: 0,
    upstreamQueries: 0,
    joined: 0,
    repeated: 0,
    displaced: 0,
    upstreamFailures: 0,
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
  /** The worker that gives synthetic addresses, and so answers all queries; `undefined` for any worker. */
  readonly #owner: number | undefined;
  readonly #fakes: FakeNames | undefined;
  readonly #cache: Cache;
  readonly #special: SpecialNames;
  readonly #udp: UdpServer;
  readonly #tcp: TcpServer;
  readonly #inFlight: InFlight;
  /** Numbers of upstreams, for their shares of the cache. */
  readonly #upstreamNumbers = new Map<DnsUpstream, number>();

  #now = 0;

  /** Question of the current query. */
  readonly #question = new Question();
  /** The same question about the target of aliases in `records`, and those aliases. */
  readonly #target = new Question();
  #aliases: FoundRecords | undefined;

  /**
   * Creates a resolver with an empty cache.
   *
   * @throws {SyntaxError} when an address, a domain, a name or a record does not parse; {@linkcode TypeError} without an
   * address, for contradictory records, and for a value of the wrong type; {@linkcode RangeError} for a number out of range.
   */
  constructor(options: DnsResolverOptions) {
    const { addresses, upstreams, split, answerLimit, places, tcp } = checkDnsOptions(options);
    const { records = [], zones = [], fakeIp, cache = {} } = options;
    this.#ipv4 = addresses.filter(({ family }) => family === 4).map(({ bytes }) =>
      new DataView(bytes.buffer).getUint32(0)
    );
    this.#ipv6 = addresses.filter(({ family }) => family === 6).map(({ bytes }) => bytes);
    this.#upstreams = upstreams;
    this.#split = split;
    this.#records = new Records(records, list(zones));
    this.#fakeIp = fakeIp;
    this.#owner = fakeIp && 0;
    this.#blocked = new BlockedNames(options);
    this.#fakes = fakeIp && new FakeNames(fakeIp);
    this.#cache = new Cache(cache === false ? { entries: 0 } : cache);
    this.#special = new SpecialNames(options.forwardSpecial ?? []);
    this.#udp = new UdpServer(this.#question, answerLimit, this.#answer);
    this.#tcp = new TcpServer(tcp, options.errors ?? new IcmpErrors(), this.#answerTcp);
    this.#inFlight = new InFlight(places, this.counters, {
      answered: (pending, answer, now) =>
        this.#cache.put(pending.key, answer, now, this.#ownerOf(pending.source, pending.upstream)),
      deliver: (query, answer, context) => {
        this.#read(query);
        this.#finish(query, answer, 0, OWN_TTLS, context);
      },
      giveUp: (query, key, error, context) => this.#giveUp(query, key, error, context),
    });
    for (const upstream of [...upstreams, ...split.flatMap(({ upstreams }) => upstreams)]) {
      this.#upstreamNumbers.set(upstream, this.#upstreamNumbers.size);
    }
  }

  /** Number of answers in the cache. */
  get cacheSize(): number {
    return this.#cache.size;
  }

  /** Number of questions that upstreams are being asked. */
  get inFlight(): number {
    return this.#inFlight.size;
  }

  /** Number of TCP connections of clients. */
  get connections(): number {
    return this.#tcp.size;
  }

  /** True while an upstream is being asked. */
  get isWaiting(): boolean {
    return this.inFlight > 0;
  }

  /** Answers queries from this machine. */
  outbound(batch: PacketBatch, context: StageContext): void {
    this.#serve(batch, context);
  }

  /** Answers queries from the far end. */
  inbound(batch: PacketBatch, context: StageContext): void {
    this.#serve(batch, context);
  }

  /** Delivers answers of upstreams, asks the next upstream after a timeout, and runs the timers of TCP. */
  tick(context: StageContext): number | undefined {
    this.#now = context.now;
    const due = Math.min(this.#inFlight.tick(context), this.#tcp.tick(context));
    const wait = this.#cache.size > 0 ? CLOCK : undefined;
    return due === Infinity ? wait : Math.min(wait ?? Infinity, Math.max(0, due - context.now));
  }

  /** Returns the cache and the names with synthetic addresses, for {@linkcode DnsResolver.restore}. */
  save(): unknown {
    return { cache: this.#cache.save(this.#now), fakeIp: this.#fakeIp?.save() ?? null };
  }

  /**
   * Restores the state of {@linkcode DnsResolver.save}. Answers keep the age that they had then.
   *
   * @throws {TypeError} for any other value, without having changed anything.
   */
  restore(state: unknown): void {
    const { cache, fakeIp } = (state ?? {}) as { cache?: unknown; fakeIp?: unknown };
    if (fakeIp === undefined || (fakeIp === null) !== (this.#fakeIp === undefined)) {
      throw new TypeError("Cannot restore a resolver: the state must be of a resolver with the same options");
    }
    const restoreCache = this.#cache.read(cache, this.#now);
    this.#fakeIp?.restore(fakeIp);
    restoreCache();
  }

  /** Aborts queries to upstreams and forgets TCP connections. */
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
      if (ip === undefined || !this.#isOwnAddress(ip)) continue;
      if (ip.protocol === Protocol.Udp) {
        const udp = Udp.of(packet);
        if (udp?.dstPort === DNS_PORT) this.#udp.receive(packet, udp, context, this.#owner);
      } else if (ip.protocol === Protocol.Tcp) {
        const tcp = Tcp.of(packet);
        if (tcp?.dstPort === DNS_PORT) this.#tcp.receive(packet, tcp, context, this.#owner);
      }
    }
  }

  #isOwnAddress(ip: Ip): boolean {
    if (ip.version === 4) return this.#ipv4.includes(ip.dst);
    const { dst } = ip;
    for (const address of this.#ipv6) {
      let i = 0;
      while (i < 16 && address[i] === dst[i]) i++;
      if (i === 16) return true;
    }
    return false;
  }

  readonly #answerTcp = (query: Query, context: StageContext): void => {
    const rcode = query.read(this.#question);
    if (rcode === NO_ANSWER) return query.drop(DnsDrop.NotAQuery, context);
    this.#answer(query, rcode, context);
  };

  /** Answers or holds the query whose question was read, unless the code ends it. */
  readonly #answer = (query: Query, rcode: number, context: StageContext): void => {
    const question = this.#question;
    if (rcode !== Rcode.NoError) {
      this.counters.refused++;
      return this.#sendEmpty(query, rcode, context);
    }
    this.counters.queries++;
    const found = this.#aliases = this.#records.find(question);
    if (found !== undefined) {
      this.counters.records++;
      if (found.target === undefined) {
        const answer = Answer.make(question, found.rcode, found.records, found.soa);
        return this.#send(query, answer, 0, OWN_TTLS, context);
      }
      this.#target.follow(question, found.target);
      return this.#resolve(this.#target, query, context);
    }
    const own = this.#ownAnswer(question, query);
    if (own !== undefined) return this.#send(query, own, 0, OWN_TTLS, context);
    this.#resolve(question, query, context);
  };

  /** Returns the answer for a blocked name or one with a synthetic address; `undefined` for other names. */
  #ownAnswer(question: Question, query: Query): Answer | undefined {
    const blocked = this.#blocked.find(question);
    if (blocked !== undefined) {
      this.counters.blocked++;
      return blocked;
    }
    if (this.#fakes === undefined || this.#splitOf(question) !== undefined) return undefined;
    const fake = this.#fakes.find(question, query.source);
    if (fake === undefined) return undefined;
    if (fake.rcode === Rcode.ServFail) this.counters.unanswered++;
    else this.counters.fakes++;
    return fake;
  }

  #splitOf(question: Question): SplitDomain | undefined {
    return this.#split.find(({ domain }) => isWithin(question.name, question.nameLength, domain));
  }

  /** Answers from cache and special names, or asks upstreams and holds the query. */
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
      // The query is gone once it is answered.
      const source = wantsMore ? query.source : "";
      this.#finish(query, entry.answer, ageOf(entry.since, now), OWN_TTLS, context);
      if (wantsMore && this.#inFlight.get(key) === undefined && !this.#inFlight.hasFailed(key, now)) {
        this.#inFlight.ask(key, question, upstreams, source, context);
      }
      return;
    }
    // Upstreams for the root domain do not include special names.
    const isNamed = split !== undefined && split.domain.length > 1;
    const special = isNamed ? undefined : this.#special.find(question);
    if (special !== undefined) {
      this.counters.special++;
      return this.#finish(query, special, 0, OWN_TTLS, context);
    }
    let pending = this.#inFlight.get(key);
    if (pending?.isRepeatedBy(query)) {
      this.counters.repeated++;
      return query.drop(DnsDrop.RepeatedQuery, context);
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

  /** Returns the key of the cache share that an answer is counted in. */
  #ownerOf(source: string, upstream: DnsUpstream | undefined): string {
    const number = upstream === undefined ? 0 : this.#upstreamNumbers.get(upstream) ?? 0;
    return source + String.fromCharCode(number);
  }

  /** Makes a query the current one. */
  #read(query: Query): void {
    query.read(this.#question);
    this.#aliases = this.#records.find(this.#question);
  }

  /** Answers a query with a stale answer, with the error of an upstream, or with SERVFAIL. */
  #giveUp(query: Query, key: string, error: Answer | undefined, context: StageContext): void {
    this.#read(query);
    const stale = this.#cache.get(key, context.now);
    if (stale !== undefined) {
      this.counters.stale++;
      return this.#finish(query, stale.answer, ageOf(stale.since, context.now), STALE_TTL, context);
    }
    this.counters.unanswered++;
    if (error !== undefined) return this.#finish(query, error, 0, OWN_TTLS, context);
    this.#sendEmpty(query, Rcode.ServFail, context);
  }

  /** Answers the current query; aliases in `records` that led to the answer come first. */
  #finish(query: Query, answer: Answer, age: number, ttl: number, context: StageContext): void {
    const question = this.#question;
    const blocked = this.#blocked.findAlias(question, answer);
    if (blocked !== undefined) {
      this.counters.blocked++;
      return this.#send(query, blocked, 0, OWN_TTLS, context);
    }
    const aliases = this.#aliases;
    if (aliases === undefined) return this.#send(query, answer, age, ttl, context);
    // Joining a long answer takes milliseconds, and the result would not fit.
    if (answer.choose(question, query.room(question)) === undefined) {
      this.counters.truncated++;
      return this.#sendEmpty(query, answer.rcode, context, true);
    }
    const whole = joinAliases(question, aliases, answer, age, ttl);
    if (whole !== undefined) return this.#send(query, whole, 0, OWN_TTLS, context);
    this.counters.badAnswers++;
    this.#sendEmpty(query, Rcode.ServFail, context);
  }

  /** Sends an answer to the current query. */
  #send(query: Query, answer: Answer, age: number, ttl: number, context: StageContext): void {
    const question = this.#question;
    const part = answer.choose(question, query.room(question));
    if (part === undefined) {
      this.counters.truncated++;
      return this.#sendEmpty(query, answer.rcode, context, true);
    }
    const { bytes, start } = query.open();
    query.send(answer.write(question, part, bytes, start, age, ttl), context);
  }

  #sendEmpty(query: Query, rcode: number, context: StageContext, isTruncated = false): void {
    const { bytes, start } = query.open();
    query.send(this.#question.writeEmpty(rcode, bytes, start, isTruncated), context);
  }
}

/** Returns an age in seconds. */
function ageOf(since: number, now: number): number {
  return Math.floor((now - since) / 1000);
}
