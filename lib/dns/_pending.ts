/** A question that is being asked, and who waits for the answer. */

import type { Direction, Packet } from "../core/mod.ts";
import { Udp } from "../udp.ts";
import { Answer } from "./_answer.ts";
import { Question } from "./_message.ts";
import type { DnsUpstream } from "./resolver_options.ts";

/** A query that is held. */
export interface Waiting {
  readonly packet: Packet;
  readonly direction: Direction;
}

/** A question that is being asked of one upstream after the other. */
export class Pending {
  readonly key: string;
  /** The queries that are held for it. */
  readonly waiting: Waiting[] = [];
  /** When the upstream whose turn it is is too late (monotonic milliseconds). */
  deadline = 0;
  /** What an upstream said that was a failure. */
  refusal: Answer | undefined;
  /** Whether something has arrived that nobody has looked at. */
  hasArrived = false;

  readonly #question = new Question();
  readonly #upstreams: readonly DnsUpstream[];
  #turn = -1;
  #controller: AbortController | undefined;
  #message: Uint8Array | undefined;

  constructor(key: string, question: Question, upstreams: readonly DnsUpstream[]) {
    this.key = key;
    this.#question.follow(question, question.name.subarray(0, question.nameLength));
    this.#upstreams = upstreams;
  }

  /** Asks the next upstream, and calls back when it has answered or failed; `false` when there is no other one. */
  askNext(deadline: number, arrive: (pending: Pending) => void): boolean {
    this.abort();
    const upstream = this.#upstreams[++this.#turn];
    if (upstream === undefined) return false;
    const controller = new AbortController();
    this.#controller = controller;
    this.deadline = deadline;
    const take = (message: unknown): void => {
      // Another one's turn has come, or somebody has closed it.
      if (this.#controller !== controller || this.hasArrived) return;
      this.#message = message instanceof Uint8Array ? message : undefined;
      this.hasArrived = true;
      arrive(this);
    };
    // What an upstream throws at once is a failure, too.
    new Promise<unknown>((resolve) =>
      resolve(upstream.query(this.#question.toUpstream(true), controller.signal))
    )
      .then(take, () => take(undefined));
    return true;
  }

  /** What has arrived: an answer, something else, or nothing because the upstream failed. */
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
  }

  /** Whether the same asker waits already for an answer with the same id. */
  isRepeatedBy(packet: Packet, udp: Udp): boolean {
    for (const { packet: other } of this.waiting) {
      const held = Udp.of(other)!;
      if (held.srcPort !== udp.srcPort || held.ip.version !== udp.ip.version) continue;
      if (packet.view.getUint16(udp.payloadOffset) !== other.view.getUint16(held.payloadOffset)) continue;
      if (isSame(held.ip.src, udp.ip.src)) return true;
    }
    return false;
  }
}

function isSame(a: number | Uint8Array, b: number | Uint8Array): boolean {
  if (typeof a === "number" || typeof b === "number") return a === b;
  let i = 0;
  while (i < a.length && a[i] === b[i]) i++;
  return i === a.length;
}
