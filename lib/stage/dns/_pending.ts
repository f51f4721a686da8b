/** A question in flight: asked of one upstream after the other, while queries wait for the answer. */

import { Answer } from "./_answer.ts";
import { Question, refusesEdns } from "./_message.ts";
import type { Query } from "./_query.ts";
import type { DnsUpstream } from "./resolver_options.ts";

/** A question that is being asked. */
export class Pending {
  readonly key: string;
  /** The client whose share it is counted in. */
  source: string;
  /** The queries that wait for it, the oldest first. */
  readonly waiting = new Set<Query>();
  /** Time at which it was first asked (monotonic milliseconds). */
  since = 0;
  /** Deadline of the upstream that is being asked (monotonic milliseconds). */
  deadline = 0;
  /** An upstream's refusal. */
  refusal: Answer | undefined;
  /** Tells whether a message has arrived, or word of a failure, that nobody has looked at. */
  hasArrived = false;
  /** Tells whether the upstream has refused EDNS, and was asked again without it. */
  isAskedAgain = false;

  readonly #question = new Question();
  readonly #upstreams: readonly DnsUpstream[];
  #turn = -1;
  #controller: AbortController | undefined;
  #message: Uint8Array | undefined;

  constructor(key: string, question: Question, upstreams: readonly DnsUpstream[], source: string) {
    this.key = key;
    this.#question.follow(question, question.name.subarray(0, question.nameLength));
    this.#upstreams = upstreams;
    this.source = source;
  }

  /** The upstream that is being asked. */
  get upstream(): DnsUpstream | undefined {
    return this.#upstreams[this.#turn];
  }

  /** Turns to the next upstream, which is `undefined` behind the last one. */
  turn(): DnsUpstream | undefined {
    this.abort();
    this.#turn++;
    return this.upstream;
  }

  /** Asks the upstream, and calls back when it has answered or failed. */
  ask(withEdns: boolean, deadline: number, arrive: (pending: Pending) => void): void {
    const controller = new AbortController();
    this.#controller = controller;
    this.deadline = deadline;
    const take = (message: unknown): void => {
      // Another upstream is being asked, or the resolver is closed.
      if (this.#controller !== controller || this.hasArrived) return;
      this.#message = message instanceof Uint8Array ? message : undefined;
      this.hasArrived = true;
      arrive(this);
    };
    this.#exchange(withEdns, controller.signal).then(take, () => take(undefined));
  }

  /** Asks again without EDNS where the upstream refuses that (RFC 6891 section 7). */
  async #exchange(withEdns: boolean, signal: AbortSignal): Promise<unknown> {
    const upstream = this.upstream!;
    const message: unknown = await upstream.query(this.#question.toUpstream(withEdns), signal);
    if (!withEdns || signal.aborted || !(message instanceof Uint8Array) || !refusesEdns(message)) {
      return message;
    }
    this.isAskedAgain = true;
    return await upstream.query(this.#question.toUpstream(false), signal);
  }

  /** Takes the arrival: an answer, `"bad"` for any other message, or `undefined` when the upstream failed. */
  look(): Answer | "bad" | undefined {
    const message = this.#message;
    this.#message = undefined;
    this.hasArrived = false;
    return message && (Answer.of(message, this.#question) ?? "bad");
  }

  /** Ends what the upstream is doing. */
  abort(): void {
    this.#controller?.abort();
    this.#controller = undefined;
    this.#message = undefined;
    this.hasArrived = false;
    this.isAskedAgain = false;
  }

  /** Tells whether one of the waiting queries is this one, sent before. */
  isRepeatedBy(query: Query): boolean {
    for (const other of this.waiting) if (query.repeats(other)) return true;
    return false;
  }
}
