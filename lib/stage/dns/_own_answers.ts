/** Answers for blocked names and for names with synthetic addresses. */

import { checkOption, gotValue } from "../../core/options.ts";
import { parseAddress } from "../../wire/address.ts";
import { BlockList } from "./block_list.ts";
import type { FakeIp } from "./fake_ip.ts";
import { Answer, encodeRecord } from "./_answer.ts";
import { type Question, Rcode, Type } from "./_message.ts";
import { formatName, parseName, reversedAddress } from "./name.ts";
import { encodeSoa } from "./_records.ts";
import { checkRange, type DnsResolverOptions, list } from "./resolver_options.ts";

// Specification: RFC 2181 section 8
const MAX_TTL = 0x7fffffff;

// Implementation
const BLOCK_TTL = 60;

/** Blocked names and the answer for them. */
export class BlockedNames {
  readonly #lists: readonly BlockList[];
  readonly #allowed: BlockList;
  readonly #rcode: number;
  readonly #records = new Map<number, Uint8Array[]>();
  readonly #soa: Uint8Array;

  /**
   * @throws {SyntaxError} when an address or a name does not parse; {@linkcode TypeError} for an option of the wrong type;
   * {@linkcode RangeError} for a TTL out of range.
   */
  constructor(options: DnsResolverOptions) {
    const { block = [], allow = [], blockAnswer = "nxdomain", blockTtl = BLOCK_TTL } = options;
    this.#lists = list(block);
    for (const names of this.#lists) checkOption("resolve names", "block", names, BlockList);
    this.#allowed = allow instanceof BlockList ? allow : new BlockList(allow);
    this.#rcode = blockAnswer === "nxdomain" ? Rcode.NxDomain : Rcode.NoError;
    this.#soa = encodeSoa(checkRange("blockTtl", blockTtl, 0, MAX_TTL));
    for (const text of answerAddresses(blockAnswer)) {
      const { family, bytes } = parseAddress(text);
      const type = family === 4 ? Type.A : Type.Aaaa;
      this.#records.set(type, [...this.#records.get(type) ?? [], encodeRecord(type, blockTtl, bytes)]);
    }
  }

  /** Returns the answer for a blocked name; `undefined` for other names. */
  find(question: Question): Answer | undefined {
    return this.#has(question.name) && !this.#allowed.hasName(question.name)
      ? this.#answer(question)
      : undefined;
  }

  /**
   * Returns the replacement for an answer that leads to a blocked name; `undefined` for other answers, and if the
   * name in the question is allowed.
   */
  findAlias(question: Question, { aliases }: Answer): Answer | undefined {
    for (const name of aliases) {
      if (!this.#has(name) || this.#allowed.hasName(name)) continue;
      return this.#allowed.hasName(question.name) ? undefined : this.#answer(question);
    }
    return undefined;
  }

  #has(name: Uint8Array): boolean {
    for (const names of this.#lists) if (names.hasName(name)) return true;
    return false;
  }

  #answer(question: Question): Answer {
    const records = this.#records.get(question.type) ?? [];
    return Answer.make(question, this.#rcode, records, records.length === 0 ? this.#soa : undefined);
  }
}

/** Returns the addresses in the answer for a blocked name. */
function answerAddresses(answer: NonNullable<DnsResolverOptions["blockAnswer"]>): readonly string[] {
  if (answer === "nxdomain") return [];
  if (answer === "null") return ["0.0.0.0", "::"];
  if (Array.isArray(answer)) return answer;
  throw new TypeError(
    `Cannot resolve names: blockAnswer must be "nxdomain", "null" or an array of addresses, ${
      gotValue(answer)
    }`,
  );
}

/** Answers from synthetic addresses, in both directions. */
export class FakeNames {
  readonly #fakeIp: FakeIp;
  readonly #soa: Uint8Array;

  constructor(fakeIp: FakeIp) {
    this.#fakeIp = fakeIp;
    this.#soa = encodeSoa(fakeIp.ttl);
  }

  /** Returns the answer for a name that has a synthetic address or gets one for this client; `undefined` for others. */
  find(question: Question, client: string): Answer | undefined {
    const fakeIp = this.#fakeIp;
    const { name, nameLength, type } = question;
    if (type === Type.Ptr) return this.#findName(question);
    const isAddress = type === Type.A || type === Type.Aaaa;
    // HTTPS and SVCB records contain real addresses (RFC 9460 section 7.3).
    if (!isAddress && type !== Type.Https && type !== Type.Svcb) return undefined;
    if (!fakeIp.takes(name, nameLength)) return undefined;
    if (!isAddress || type === Type.Aaaa && !fakeIp.hasIpv6) {
      return Answer.make(question, Rcode.NoError, [], this.#soa);
    }
    const address = fakeIp.addressBytes(name, type === Type.A ? 4 : 6, client);
    if (address === undefined) return Answer.make(question, Rcode.ServFail, []);
    return Answer.make(question, Rcode.NoError, [encodeRecord(type, fakeIp.ttl, address)]);
  }

  /** Returns the PTR answer for a synthetic address; `undefined` for other names. */
  #findName(question: Question): Answer | undefined {
    const address = reversedAddress(formatName(question.name));
    if (address === undefined || !this.#fakeIp.contains(address)) return undefined;
    const owner = this.#fakeIp.nameOf(address);
    if (owner === undefined) return Answer.make(question, Rcode.NxDomain, [], this.#soa);
    return Answer.make(question, Rcode.NoError, [encodeRecord(Type.Ptr, this.#fakeIp.ttl, parseName(owner))]);
  }
}
