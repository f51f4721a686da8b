/** Checks a resolver's options and fills in defaults. */

import { type Address, parseAddress } from "../../wire/address.ts";
import { checkOptions, gotValue, type OptionKinds } from "../../core/options.ts";
import { IcmpErrors } from "../../icmp/icmp_error.ts";
import type { InFlightLimits } from "./_in_flight.ts";
import { EDNS_SIZE } from "./_message.ts";
import { FakeIp } from "./fake_ip.ts";
import { parseName } from "./name.ts";
import { checkRange, type DnsResolverOptions, type DnsUpstream, list } from "./resolver_options.ts";
import type { TcpServerLimits } from "./_tcp_server.ts";

// Specification
const MAX_TIME = 0x7fffffff;
/** Message size that every host accepts over UDP (bytes; RFC 1035 section 4.2.1). */
const MIN_ANSWER = 512;
/** Largest message in an Ethernet frame over IPv6 (bytes). */
const MAX_ANSWER = 1452;

// Implementation
const NAMES: OptionKinds<DnsResolverOptions> = {
  address: "texts",
  upstream: "any",
  split: "object",
  records: "any",
  zones: "texts",
  block: "any",
  allow: "iterable",
  blockAnswer: "any",
  blockTtl: "number",
  fakeIp: FakeIp,
  forwardSpecial: "any",
  cache: "any",
  timeout: "number",
  inFlight: "number",
  waiting: "number",
  connections: "number",
  idleTimeout: "number",
  answerLimit: "number",
  errors: IcmpErrors,
};
const TIMEOUT = 2000;
const IN_FLIGHT = 256;
const WAITING = 512;
const CONNECTIONS = 256;
/** RFC 7766 section 6.2.3 recommends a few seconds (milliseconds). */
const IDLE_TIMEOUT = 10_000;
const MAX_PLACES = 65_536;

/** Domain with its own upstreams. */
export interface SplitDomain {
  readonly domain: Uint8Array;
  readonly upstreams: readonly DnsUpstream[];
}

/** Options of a resolver, checked and with defaults filled in. */
export interface CheckedOptions {
  readonly addresses: readonly Address[];
  readonly upstreams: readonly DnsUpstream[];
  /** Split domains, the longest first. */
  readonly split: readonly SplitDomain[];
  /** Maximum length of an answer over UDP (bytes). */
  readonly answerLimit: number;
  readonly places: InFlightLimits;
  readonly tcp: TcpServerLimits;
}

/**
 * Checks the options, except those that records, block lists, `fakeIp`, special names and the cache check.
 *
 * @throws what the constructor of {@linkcode DnsResolver} throws.
 */
export function checkDnsOptions(options: DnsResolverOptions): CheckedOptions {
  checkOptions("resolve names", options, NAMES, ["address"]);
  const addresses = list(options.address).map(parseAddress);
  if (addresses.length === 0) throw new TypeError("Cannot resolve names: address must not be empty");
  return {
    addresses,
    upstreams: upstreamsOf(options.upstream ?? []),
    split: Object.entries(options.split ?? {})
      .map(([domain, upstreams]) => ({ domain: parseName(domain), upstreams: upstreamsOf(upstreams) }))
      .sort((a, b) => b.domain.length - a.domain.length),
    answerLimit: checkRange("answerLimit", options.answerLimit ?? EDNS_SIZE, MIN_ANSWER, MAX_ANSWER),
    places: {
      timeout: checkRange("timeout", options.timeout ?? TIMEOUT, 1, MAX_TIME),
      questions: checkRange("inFlight", options.inFlight ?? IN_FLIGHT, 1, MAX_PLACES),
      queries: checkRange("waiting", options.waiting ?? WAITING, 1, MAX_PLACES),
    },
    tcp: {
      connections: checkRange("connections", options.connections ?? CONNECTIONS, 0, MAX_PLACES),
      idleTimeout: checkRange("idleTimeout", options.idleTimeout ?? IDLE_TIMEOUT, 1, MAX_TIME),
    },
  };
}

function upstreamsOf(given: DnsUpstream | readonly DnsUpstream[]): readonly DnsUpstream[] {
  const upstreams = list(given);
  for (const upstream of upstreams) {
    if (typeof upstream?.query === "function") continue;
    throw new TypeError(
      `Cannot resolve names: upstream must be an object with query(), ${gotValue(upstream)}: ` +
        'write parseUpstream("192.0.2.1")',
    );
  }
  return upstreams;
}
