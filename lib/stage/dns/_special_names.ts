/**
 * Special-use names, which mean nothing in the public DNS. A resolver answers them itself: an upstream has no useful
 * answer, and the query would reveal details of this network.
 *
 * IANA "Special-Use Domain Names" and "Locally-Served DNS Zones". The names of RFC 6761 section 6.5 (`example`) and RFC
 * 8880 (`ipv4only.arpa`) are resolved normally.
 */

import { gotValue } from "../../core/options.ts";
import { Answer, encodeRecord } from "./_answer.ts";
import { BlockList } from "./block_list.ts";
import { type Question, Rcode, Type } from "./_message.ts";
import { formatName, isWithin, parseName } from "./name.ts";
import { encodeSoa } from "./_records.ts";

// Specification
/** Domains that do not exist: RFC 6761 sections 6.2 and 6.4, RFC 6762 section 22.1, RFC 7686 section 2, RFC 9476. */
const MISSING = ["alt", "invalid", "local", "onion", "test"];
/** RFC 6761 section 6.3. */
const LOCALHOST = "localhost";
/** RFC 9462 section 6.4: NODATA from a resolver without encrypted DNS. */
const NO_RECORDS = "resolver.arpa";
/** Empty zones. */
const EMPTY = [
  // RFC 8375 section 4, RFC 9665 section 10.1.1
  ...["home.arpa", "service.arpa"],
  // RFC 6303 sections 4.1 and 4.2, RFC 6761 section 6.1: private, "this network", loopback, link-local
  ...["10", "168.192", "0", "127", "254.169"].map((prefix) => `${prefix}.in-addr.arpa`),
  ...Array.from({ length: 16 }, (_, i) => `${16 + i}.172.in-addr.arpa`),
  // RFC 6303 section 4.2: documentation, broadcast
  ...["2.0.192", "100.51.198", "113.0.203", "255.255.255.255"].map((prefix) => `${prefix}.in-addr.arpa`),
  // RFC 7793 section 2: shared addresses, 100.64.0.0/10
  ...Array.from({ length: 64 }, (_, i) => `${64 + i}.100.in-addr.arpa`),
  // RFC 6303 sections 4.3 to 4.6: `::`, `::1`, unique local, link-local, documentation
  ...[`${"0.".repeat(32)}ip6.arpa`, `1.${"0.".repeat(31)}ip6.arpa`],
  ...["d.f", "8.e.f", "9.e.f", "a.e.f", "b.e.f", "8.b.d.0.1.0.0.2"].map((prefix) => `${prefix}.ip6.arpa`),
];
/** Reverse names of 127.0.0.1 and ::1. */
const LOOPBACK = ["1.0.0.127.in-addr.arpa", `1.${"0.".repeat(31)}ip6.arpa`].map(parseName);
const ARPA = parseName("arpa");
/** RFC 6303 section 3. */
const TTL = 10_800; // seconds
/** Length of the data of an SOA whose names are the root (bytes). */
const SOA_DATA = 22;

const LOOPBACK_IPV4 = Uint8Array.of(127, 0, 0, 1);
const LOOPBACK_IPV6 = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);

// Implementation
/** Kind of answer for the names of a zone. */
type Kind = "missing" | "localhost" | "no records" | "empty";

interface Zone {
  readonly name: Uint8Array;
  readonly kind: Kind;
  readonly soa: Uint8Array;
}

const ZONES: readonly Zone[] = [
  ...MISSING.map((name) => zone(name, "missing")),
  zone(LOCALHOST, "localhost"),
  zone(NO_RECORDS, "no records"),
  ...EMPTY.map((name) => zone(name, "empty")),
];
const NAMES = new BlockList(ZONES.map(({ name }) => formatName(name)));

function zone(text: string, kind: Kind): Zone {
  const name = parseName(text);
  return { name, kind, soa: encodeSoa(TTL, name) };
}

/** Reports whether a name in lower case and wire format is a special-use name or below one. */
export function isSpecialName(name: Uint8Array): boolean {
  return NAMES.hasName(name);
}

/** Special-use names that a resolver answers itself. */
export class SpecialNames {
  readonly #forwarded: BlockList | true;

  /**
   * @param forwarded Names that go to upstreams.
   * @throws {SyntaxError} when a name does not parse; {@linkcode TypeError} for one that is not special-use.
   */
  constructor(forwarded: true | string | readonly string[]) {
    if (forwarded === true) {
      this.#forwarded = true;
      return;
    }
    const names = [forwarded].flat();
    for (const name of names) {
      if (typeof name !== "string") {
        throw new TypeError(
          `Cannot resolve names: forwardSpecial must be true, a name or an array of names, ${
            gotValue(forwarded)
          }`,
        );
      }
      if (isSpecialName(parseName(name))) continue;
      throw new TypeError(`Cannot resolve names: forwardSpecial must name special-use names, got "${name}"`);
    }
    this.#forwarded = new BlockList(names);
  }

  /** Returns the answer for a special-use name; `undefined` for other and for forwarded names. */
  find(question: Question): Answer | undefined {
    const { name, nameLength, type } = question;
    if (!isSpecialName(name) || this.#forwarded === true || this.#forwarded.hasName(name)) return undefined;
    const zone = ZONES.find((zone) => isWithin(name, nameLength, zone.name))!;
    const isApex = zone.name.length === nameLength;
    // RFC 8375 section 4: DS records belong to the parent zone.
    if (isApex && type === Type.Ds && isWithin(name, nameLength, ARPA)) return undefined;
    const record = recordOf(zone, isApex, question);
    if (record !== undefined) return Answer.make(question, Rcode.NoError, [encodeRecord(type, TTL, record)]);
    const exists = zone.kind === "empty"
      ? isApex ||
        LOOPBACK.some((loopback) => isWithin(loopback, loopback.length, name.subarray(0, nameLength)))
      : zone.kind !== "missing";
    return Answer.make(question, exists ? Rcode.NoError : Rcode.NxDomain, [], zone.soa);
  }
}

/** Returns the data of the single record of a special-use name, if it has one of this type. */
function recordOf(zone: Zone, isApex: boolean, { name, nameLength, type }: Question): Uint8Array | undefined {
  if (zone.kind === "localhost") {
    if (type === Type.A) return LOOPBACK_IPV4;
    return type === Type.Aaaa ? LOOPBACK_IPV6 : undefined;
  }
  if (zone.kind !== "empty") return undefined;
  if (type === Type.Ptr) {
    const isLoopback = LOOPBACK.some(({ length }, i) =>
      length === nameLength && isWithin(name, nameLength, LOOPBACK[i]!)
    );
    return isLoopback ? parseName(LOCALHOST) : undefined;
  }
  if (!isApex) return undefined;
  // RFC 6303 section 3: a zone has an SOA and is its own name server.
  if (type === Type.Ns) return zone.name;
  return type === Type.Soa ? zone.soa.subarray(zone.soa.length - SOA_DATA) : undefined;
}
