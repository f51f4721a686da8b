/** Question in flight: sent to one upstream after the other while queries wait for the answer. */

import { Answer } from "./_answer.ts";
import { Question, refusesEdns } from "./_message.ts";
import type { Query } from "./_query.ts";
import type { DnsUpstream } from "./resolver_options.ts";

export class Pending {
  /** Key of its name, type and DNSSEC flags. */
  readonly key: string;
  /** Client whose share it is counted in. */
  source: string;
  /** Queries that wait for it, the oldest first. */
  readonly waiting = new Set<Query>();
  /** Time of the first query to an upstream (monotonic milliseconds). */
  since = 0;
  /** Deadline of the current upstream (monotonic milliseconds). */
  deadline = 0;
  /** Last error response of an upstream. */
  error: Answer | undefined;
  /** True if a response or a failure has arrived and not been taken yet. */
  hasArrived = false;
  /** True if the upstream refused EDNS and was asked again without it. */
  isAskedAgain = false;

  readonly #question = new Question();
  readonly #upstreams: readonly DnsUpstream[];
  #current = -1;
  #controller: AbortController | undefined;
  #message: Uint8Array | undefined;

  constructor(key: string, question: Question, upstreams: readonly DnsUpstream[], source: string) {
    this.key = key;
    this.#question.follow(question, question.name.subarray(0, question.nameLength));
    this.#upstreams = upstreams;
    this.source = source;
  }

  get upstream(): DnsUpstream | undefined {
    return this.#upstreams[this.#current];
  }

  /** Moves to the next upstream, `undefined` after the last one. */
  nextUpstream(): DnsUpstream | undefined {
    this.abort();
    this.#current++;
    return this.upstream;
  }

  /** Sends the question to the current upstream; calls back when it has responded or failed. */
  ask(withEdns: boolean, deadline: number, arrive: (pending: Pending) => void): void {
    const controller = new AbortController();
    this.#controller = controller;
    this.deadline = deadline;
    const take = (message: unknown): void => {
      // Another upstream is current, or the resolver is closed.
      if (this.#controller !== controller || this.hasArrived) return;
      this.#message = message instanceof Uint8Array ? message : undefined;
      this.hasArrived = true;
      arrive(this);
    };
    this.#exchange(withEdns, controller.signal).then(take, () => take(undefined));
  }

  /** Sends the query; if the upstream refuses EDNS, sends it again without (RFC 6891 section 7). */
  async #exchange(withEdns: boolean, signal: AbortSignal): Promise<unknown> {
    const upstream = this.upstream!;
    const message: unknown = await upstream.query(this.#question.toUpstream(withEdns), signal);
    if (!withEdns || signal.aborted || !(message instanceof Uint8Array) || !refusesEdns(message)) {
      return message;
    }
    this.isAskedAgain = true;
    return await upstream.query(this.#question.toUpstream(false), signal);
  }

  /** Takes the arrival: an answer, `"bad"` for any other message, or `undefined` if the upstream failed. */
  takeArrival(): Answer | "bad" | undefined {
    const message = this.#message;
    this.#message = undefined;
    this.hasArrived = false;
    return message && (Answer.of(message, this.#question) ?? "bad");
  }

  /** Aborts the current upstream. */
  abort(): void {
    this.#controller?.abort();
    this.#controller = undefined;
    this.#message = undefined;
    this.hasArrived = false;
    this.isAskedAgain = false;
  }

  /** Reports whether the query is a retransmission of a waiting one. */
  isRepeatedBy(query: Query): boolean {
    for (const other of this.waiting) if (query.repeats(other)) return true;
    return false;
  }
}
