/**
 * Questions in flight and the queries that wait for them. Both are bounded, and clients share the places. When none is
 * free, the client with the most loses its oldest one to a client with fewer. If no client has many, as with queries from
 * forged addresses, the oldest of all makes room.
 *
 *     query ──► wait() ──► free place? ──► held ····· upstream's answer ──► delivered
 *                              │ no           └····· timeout, or displaced ──► given up
 *                              └──► the client with the most gives one up, or this query does
 */

import type { StageContext } from "../../core/mod.ts";
import { Answer } from "./_answer.ts";
import { type Question, Rcode } from "./_message.ts";
import { Pending } from "./_pending.ts";
import { type Query, SMALL_SHARE } from "./_query.ts";
import type { DnsCounters, DnsUpstream } from "./resolver_options.ts";

// Implementation
/** Time for which a failed question is not asked again (milliseconds; RFC 9520 section 3.2: at least a second). */
const FAILURE_TIME = 1000;
const MAX_FAILURES = 1000;
/** Minimum time that a question keeps its place while no client has many (milliseconds). */
const MIN_WAIT = 50;
/** Time for which an upstream that refused EDNS gets queries without it (milliseconds). */
const PLAIN_TIME = 600_000;

/** Callbacks for the outcome of questions and queries. */
export interface Outcome {
  /** Takes the answer of an upstream, before its queries are delivered. */
  answered(pending: Pending, answer: Answer, now: number): void;
  /** Answers a query that waited. */
  deliver(query: Query, answer: Answer, context: StageContext): void;
  /** Ends a query that no upstream answered; `error` is the last error response of an upstream. */
  giveUp(query: Query, key: string, error: Answer | undefined, context: StageContext): void;
}

export interface InFlightLimits {
  /** Time that an upstream has to respond (milliseconds). */
  readonly timeout: number;
  /** Maximum questions in flight. */
  readonly questions: number;
  /** Maximum queries that wait. */
  readonly queries: number;
}

/** Client with questions in flight or waiting queries, the oldest first. */
interface Source {
  readonly key: string;
  readonly questions: Set<Pending>;
  readonly queries: Map<Query, Pending>;
}

/** Outstanding questions, by key. */
export class InFlight {
  readonly #limits: InFlightLimits;
  readonly #counters: DnsCounters;
  readonly #outcome: Outcome;
  readonly #pending = new Map<string, Pending>();
  readonly #sources = new Map<string, Source>();
  #arrivals: Pending[] = [];
  #waiting = 0;
  /** Time of failure of each question, by its key. */
  readonly #failures = new Map<string, number>();
  /** End of the time without EDNS for each upstream. */
  readonly #plain = new Map<DnsUpstream, number>();
  #context: StageContext | undefined;
  #isClosed = false;

  constructor(limits: InFlightLimits, counters: DnsCounters, outcome: Outcome) {
    this.#limits = limits;
    this.#counters = counters;
    this.#outcome = outcome;
  }

  /** Number of questions in flight. */
  get size(): number {
    return this.#pending.size;
  }

  /** Returns a question in flight. */
  get(key: string): Pending | undefined {
    return this.#pending.get(key);
  }

  /** Reports whether a question failed less than a second ago. */
  hasFailed(key: string, now: number): boolean {
    return now - (this.#failures.get(key) ?? -Infinity) < FAILURE_TIME;
  }

  /** Asks a question for a client; returns `undefined` if no place is free for it, or after `close()`. */
  ask(
    key: string,
    question: Question,
    upstreams: readonly DnsUpstream[],
    source: string,
    context: StageContext,
  ): Pending | undefined {
    if (this.#isClosed) return undefined;
    // Created first: giving up another query overwrites this question.
    const pending = new Pending(key, question, upstreams, source);
    if (!this.#makeRoomForQuestion(source, context)) return undefined;
    this.#pending.set(key, pending);
    this.#sourceOf(source).questions.add(pending);
    pending.since = context.now;
    this.#askNext(pending, context);
    return pending;
  }

  /** Holds a query until its question is answered; returns false if no place is free for it. */
  wait(pending: Pending, query: Query, context: StageContext): boolean {
    if (!this.#makeRoomForQuery(query.source, context)) return false;
    this.#waiting++;
    pending.waiting.add(query);
    this.#sourceOf(query.source).queries.set(query, pending);
    query.hold(context);
    return true;
  }

  /** Handles arrivals and timeouts of upstreams; returns the next deadline. */
  tick(context: StageContext): number {
    this.#context = context;
    const arrivals = this.#arrivals;
    this.#arrivals = [];
    for (const pending of arrivals) this.#handle(pending, context);
    let due = Infinity;
    for (const pending of this.#pending.values()) {
      if (pending.deadline <= context.now) this.#fail(pending, context);
      if (pending.deadline < due) due = pending.deadline;
    }
    return due;
  }

  close(): void {
    this.#isClosed = true;
    for (const pending of this.#pending.values()) pending.abort();
    this.#pending.clear();
    this.#sources.clear();
    this.#arrivals = [];
  }

  /** Asks the next upstream of a question; returns false after the last one. */
  #askNext(pending: Pending, context: StageContext): boolean {
    const upstream = pending.nextUpstream();
    if (upstream === undefined) return false;
    const isPlain = (this.#plain.get(upstream) ?? -Infinity) > context.now;
    this.#context = context;
    this.#counters.upstreamQueries++;
    pending.ask(!isPlain, context.now + this.#limits.timeout, this.#arrive);
    // The loop has to know the new deadline.
    context.wake();
    return true;
  }

  readonly #arrive = (pending: Pending): void => {
    if (this.#isClosed) return;
    this.#arrivals.push(pending);
    this.#context?.wake();
  };

  #handle(pending: Pending, context: StageContext): void {
    // The question may have timed out or been displaced since.
    if (!pending.hasArrived || this.#pending.get(pending.key) !== pending) return;
    const answer = pending.takeArrival();
    if (pending.isAskedAgain) this.#counters.upstreamQueries++;
    if (answer === "bad") this.#counters.badAnswers++;
    if (!(answer instanceof Answer)) return this.#fail(pending, context);
    const { rcode } = answer;
    if (rcode !== Rcode.NoError && rcode !== Rcode.NxDomain) {
      // FORMERR and NOTIMP are about our query, not the client's.
      if (rcode !== Rcode.FormErr && rcode !== Rcode.NotImp) pending.error = answer;
      return this.#fail(pending, context);
    }
    if (pending.isAskedAgain) this.#plain.set(pending.upstream!, context.now + PLAIN_TIME);
    this.#failures.delete(pending.key);
    this.#outcome.answered(pending, answer, context.now);
    for (const query of this.#end(pending)) this.#outcome.deliver(query, answer, context);
  }

  /** Asks the next upstream, or gives up. */
  #fail(pending: Pending, context: StageContext): void {
    this.#counters.upstreamFailures++;
    if (this.#askNext(pending, context)) return;
    pending.deadline = Infinity;
    this.#failures.delete(pending.key);
    this.#failures.set(pending.key, context.now);
    if (this.#failures.size > MAX_FAILURES) this.#failures.delete(this.#failures.keys().next().value!);
    for (const query of this.#end(pending)) {
      this.#outcome.giveUp(query, pending.key, pending.error, context);
    }
  }

  /** Removes a question; returns the queries that waited for it. */
  #end(pending: Pending): Query[] {
    pending.abort();
    this.#pending.delete(pending.key);
    const owner = this.#sources.get(pending.source);
    owner?.questions.delete(pending);
    this.#forget(owner);
    const queries = Array.from(pending.waiting);
    for (const query of queries) this.#release(pending, query);
    return queries;
  }

  #release(pending: Pending, query: Query): void {
    this.#waiting--;
    pending.waiting.delete(query);
    const source = this.#sources.get(query.source);
    source?.queries.delete(query);
    this.#forget(source);
  }

  #sourceOf(key: string): Source {
    let source = this.#sources.get(key);
    if (source === undefined) {
      source = { key, questions: new Set(), queries: new Map() };
      this.#sources.set(key, source);
    }
    return source;
  }

  #forget(source: Source | undefined): void {
    if (source?.questions.size === 0 && source.queries.size === 0) this.#sources.delete(source.key);
  }

  #makeRoomForQuestion(source: string, context: StageContext): boolean {
    while (this.#pending.size >= this.#limits.questions) {
      const loser = this.#loser("questions", this.#limits.questions, source, context.now);
      if (loser === undefined) return false;
      this.#displace(loser.questions.values().next().value!, loser, context);
    }
    return true;
  }

  #makeRoomForQuery(source: string, context: StageContext): boolean {
    while (this.#waiting >= this.#limits.queries) {
      const loser = this.#loser("queries", this.#limits.queries, source, context.now);
      if (loser === undefined) return false;
      const [query, pending] = loser.queries.entries().next().value!;
      this.#counters.displaced++;
      this.#release(pending, query);
      this.#outcome.giveUp(query, pending.key, undefined, context);
    }
    return true;
  }

  /** Returns the client that loses its oldest place to `source`; `undefined` if none has to. */
  #loser(kind: "questions" | "queries", places: number, source: string, now: number): Source | undefined {
    const own = this.#sources.get(source)?.[kind].size ?? 0;
    let largest: Source | undefined;
    let oldest: Source | undefined;
    let since = Infinity;
    for (const other of this.#sources.values()) {
      const [first] = kind === "questions" ? other.questions : other.queries.values();
      if (first === undefined) continue;
      if (largest === undefined || other[kind].size > largest[kind].size) largest = other;
      if (first.since >= since) continue;
      oldest = other;
      since = first.since;
    }
    const small = Math.max(1, places * SMALL_SHARE);
    const max = largest![kind].size;
    if (max > small) return max > own ? largest : undefined;
    return now - since >= MIN_WAIT ? oldest : undefined;
  }

  /** Counts a question for another client that waits for it and has fewer, if any; otherwise gives it up. */
  #displace(pending: Pending, owner: Source, context: StageContext): void {
    for (const query of pending.waiting) {
      const other = this.#sources.get(query.source)!;
      if (other.questions.size + 1 >= owner.questions.size) continue;
      owner.questions.delete(pending);
      pending.source = other.key;
      other.questions.add(pending);
      return;
    }
    this.#counters.displaced++;
    for (const query of this.#end(pending)) this.#outcome.giveUp(query, pending.key, undefined, context);
  }
}
