/** What the resolver says of names that are blocked, and of names that have synthetic addresses. */

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

/** Names that are blocked, and what is said of them. */
export class BlockedNames {
  readonly #lists: readonly BlockList[];
  readonly #allowed: BlockList;
  readonly #rcode: number;
  readonly #records = new Map<number, Uint8Array[]>();
  readonly #soa: Uint8Array;

  /**
   * @throws {SyntaxError} when an address or a name does not parse; {@linkcode TypeError} for what is no list or no answer;
   * {@linkcode RangeError} for a TTL out of range.
   */
  constructor(options: DnsResolverOptions) {
    const { block = [], allow = [], blockAnswer = "nxdomain", blockTtl = BLOCK_TTL } = options;
    this.#lists = list(block);
    for (const names of this.#lists) {
      if (names instanceof BlockList) continue;
      throw new TypeError(`Cannot block ${JSON.stringify(names)}: it is no BlockList: make one of the names`);
    }
    this.#allowed = allow instanceof BlockList ? allow : new BlockList(allow);
    this.#rcode = blockAnswer === "nxdomain" ? Rcode.NxDomain : Rcode.NoError;
    this.#soa = encodeSoa(checkRange("blockTtl", blockTtl, 0, MAX_TTL));
    for (const text of answerAddresses(blockAnswer)) {
      const { family, bytes } = parseAddress(text);
      const type = family === 4 ? Type.A : Type.Aaaa;
      this.#records.set(type, [...this.#records.get(type) ?? [], encodeRecord(type, blockTtl, bytes)]);
    }
  }

  /** The answer for a blocked name; `undefined` for other names. */
  find(asked: Question): Answer | undefined {
    return this.#has(asked.name) && !this.#allowed.hasName(asked.name) ? this.#answer(asked) : undefined;
  }

  /**
   * The answer instead of one that leads to a blocked name; `undefined` when it leads to none, and for a name that is
   * allowed itself.
   */
  findAlias(asked: Question, { aliases }: Answer): Answer | undefined {
    for (const name of aliases) {
      if (!this.#has(name) || this.#allowed.hasName(name)) continue;
      return this.#allowed.hasName(asked.name) ? undefined : this.#answer(asked);
    }
    return undefined;
  }

  #has(name: Uint8Array): boolean {
    for (const names of this.#lists) if (names.hasName(name)) return true;
    return false;
  }

  #answer(asked: Question): Answer {
    const records = this.#records.get(asked.type) ?? [];
    return Answer.make(asked, this.#rcode, records, records.length === 0 ? this.#soa : undefined);
  }
}

/** The addresses that are said of a blocked name. */
function answerAddresses(answer: NonNullable<DnsResolverOptions["blockAnswer"]>): readonly string[] {
  if (answer === "nxdomain") return [];
  if (answer === "null") return ["0.0.0.0", "::"];
  if (Array.isArray(answer)) return answer;
  throw new TypeError(
    `Cannot answer ${
      JSON.stringify(answer)
    } for blocked names: write "nxdomain", "null" or a list of addresses`,
  );
}

/** Names that have synthetic addresses, and the names of those addresses. */
export class FakeNames {
  readonly #fakeIp: FakeIp;
  readonly #soa: Uint8Array;

  constructor(fakeIp: FakeIp) {
    this.#fakeIp = fakeIp;
    this.#soa = encodeSoa(fakeIp.ttl);
  }

  /** The answer for a name that has synthetic addresses, or gets one for this client; `undefined` for other names. */
  find(asked: Question, client: string): Answer | undefined {
    const fakeIp = this.#fakeIp;
    const { name, nameLength, type } = asked;
    if (type === Type.Ptr) return this.#findName(asked);
    const isAddress = type === Type.A || type === Type.Aaaa;
    // What HTTPS and SVCB say holds real addresses (RFC 9460 section 7.3).
    if (!isAddress && type !== Type.Https && type !== Type.Svcb) return undefined;
    if (!fakeIp.takes(name, nameLength)) return undefined;
    if (!isAddress || type === Type.Aaaa && !fakeIp.hasIpv6) {
      return Answer.make(asked, Rcode.NoError, [], this.#soa);
    }
    const address = fakeIp.addressBytes(name, type === Type.A ? 4 : 6, client);
    if (address === undefined) return Answer.make(asked, Rcode.ServFail, []);
    return Answer.make(asked, Rcode.NoError, [encodeRecord(type, fakeIp.ttl, address)]);
  }

  /** What is said of an address, by the name that it is asked by. */
  #findName(asked: Question): Answer | undefined {
    const address = reversedAddress(formatName(asked.name));
    if (address === undefined || !this.#fakeIp.contains(address)) return undefined;
    const owner = this.#fakeIp.nameOf(address);
    if (owner === undefined) return Answer.make(asked, Rcode.NxDomain, [], this.#soa);
    return Answer.make(asked, Rcode.NoError, [encodeRecord(Type.Ptr, this.#fakeIp.ttl, parseName(owner))]);
  }
}
