/** Options, upstreams and counters of a resolver. */

import { checkInteger } from "../../core/options.ts";
import type { IcmpErrors } from "../../icmp/icmp_error.ts";
import type { DnsCacheOptions } from "./_cache.ts";
import type { BlockList } from "./block_list.ts";
import type { DnsRecord } from "./codec.ts";
import type { FakeIp } from "./fake_ip.ts";

/** Name server that a resolver forwards queries to: one of `@warren/tunnel/dns_upstream`, or a script's own. */
export interface DnsUpstream {
  /**
   * Sends a query and resolves to the response; both are messages without the length prefix of TCP (RFC 1035 section 4).
   * The query has id 0, and the id of the response is ignored. A rejection counts as a failure. The signal aborts once no
   * client waits any more.
   *
   * An upstream that responds FORMERR, NOTIMP or BADVERS is asked again without EDNS (RFC 6891 section 7), and gets no EDNS
   * for ten minutes.
   */
  query(message: Uint8Array, signal: AbortSignal): Promise<Uint8Array>;
}

/** Options of {@linkcode DnsResolver}. */
export interface DnsResolverOptions {
  /** IPv4 and IPv6 addresses on which queries are answered; no host of the tunnel may have them. */
  address: string | readonly string[];
  /** Upstreams in the order in which they are tried. @default {none: names that need one are REFUSED} */
  upstream?: DnsUpstream | readonly DnsUpstream[];
  /**
   * Upstreams for a domain and all names below it; the longest domain counts. These names get no synthetic addresses.
   * @default {{}}
   */
  split?: Readonly<Record<string, DnsUpstream | readonly DnsUpstream[]>>;
  /**
   * Local records: lines of the form `NAME [TTL] TYPE DATA`, or objects. Lines take the types A, AAAA, CAA, CNAME, MX, NS,
   * PTR, SRV and TXT; the TTL defaults to 60 s. `*.NAME` matches all names below that have no records (RFC 4592). A and
   * AAAA records imply the PTR record of their address. The resolver is authoritative for these names: other types have
   * no records. @default {[]}
   */
  records?: string | Iterable<string | DnsRecord>;
  /** Domains for which the resolver is authoritative: names without `records` do not exist. @default {[]} */
  zones?: string | readonly string[];
  /** Blocked names, and names whose answer leads to one by CNAME, DNAME, HTTPS or SVCB. @default {none} */
  block?: BlockList | readonly BlockList[];
  /** Names that are never blocked, whatever `block` contains and wherever their answers lead. @default {none} */
  allow?: BlockList | Iterable<string>;
  /** Answer for blocked names: NXDOMAIN, the addresses `0.0.0.0` and `::`, or these addresses. @default {"nxdomain"} */
  blockAnswer?: "nxdomain" | "null" | readonly string[];
  /** TTL of answers for blocked names (seconds). @default {60} */
  blockTtl?: number;
  /** Source of synthetic addresses; names in `split` keep their real addresses. @default {none} */
  fakeIp?: FakeIp;
  /**
   * Special-use names that are forwarded to upstreams, with all names below them; `true`: all special-use names. The
   * others are answered here: `localhost` has loopback addresses; `alt`, `invalid`, `local`, `onion`, `test`, and names in
   * `home.arpa`, `service.arpa` and the reverse zones of private, shared, link-local, loopback and documentation addresses
   * do not exist; `resolver.arpa` has no records (IANA "Special-Use Domain Names" and "Locally-Served DNS Zones").
   * `records`, `zones` and `split` take precedence. @default {[]}
   */
  forwardSpecial?: true | string | readonly string[];
  /** Cache of upstreams' answers; `false`: no cache. @default {{}} */
  cache?: DnsCacheOptions | false;
  /** Time that an upstream has to respond (milliseconds). @default {2000} */
  timeout?: number;
  /**
   * Maximum questions that are forwarded at a time. When all places are taken, the client with the most questions loses its
   * oldest one to a client with fewer, and gets SERVFAIL. If no client has more than a sixteenth, the oldest question of all
   * makes room. A client is an IPv4 address or the /64 of an IPv6 address. @default {256}
   */
  inFlight?: number;
  /** Maximum queries that wait for upstreams; shared by clients as `inFlight` is. @default {512} */
  waiting?: number;
  /**
   * Maximum TCP connections of clients; 0 refuses all. When all places are taken, the client with the most connections loses
   * one, preferably idle, to a client with fewer. If no client has more than a sixteenth, the connection that has been idle
   * for longest makes room. @default {256}
   */
  connections?: number;
  /** Idle time after which a TCP connection is closed (milliseconds). @default {10000} */
  idleTimeout?: number;
  /**
   * Maximum length of an answer over UDP (bytes, 512 to 1452). From a longer answer, additional records are removed, then
   * authority records that it does not need; if its answer records still do not fit, it is sent empty with TC.
   * @default {1232}
   */
  answerLimit?: number;
  /** Sends RST for TCP packets that belong to no connection, and limits their rate. @default {new IcmpErrors()} */
  errors?: IcmpErrors;
}

/** Counters of a {@linkcode DnsResolver}. */
export interface DnsCounters {
  /** Well-formed queries. */
  queries: number;
  /** Queries answered from local records. */
  records: number;
  /** Queries for blocked names. */
  blocked: number;
  /** Queries answered with synthetic addresses, or with their names. */
  fakes: number;
  /** Queries for special-use names that were answered without an upstream. */
  special: number;
  /** Queries answered from the cache. */
  cached: number;
  /** Queries answered with a stale answer from the cache. */
  stale: number;
  /** Queries sent to upstreams. */
  upstreamQueries: number;
  /** Queries that joined a question already in flight. */
  joined: number;
  /** Retransmissions of queries that were already waiting; dropped. */
  repeated: number;
  /** Questions and waiting queries that made room for a client with fewer. */
  displaced: number;
  /** Queries to upstreams that failed, timed out or were answered with an error. */
  upstreamFailures: number;
  /** Responses of upstreams that were malformed or did not match the question. */
  badAnswers: number;
  /** Queries answered with SERVFAIL, or with an upstream's error. */
  unanswered: number;
  /** Malformed queries, and queries answered with REFUSED or NOTIMP. */
  refused: number;
  /** Answers sent with TC because their records did not fit. */
  truncated: number;
}

/** Turns one value or several into an array. For the resolver. */
export function list<Value>(values: Value | readonly Value[]): readonly Value[] {
  return Array.isArray(values) ? values : [values as Value];
}

/** Returns an option after {@linkcode checkInteger}. For the resolver. */
export function checkRange(name: string, value: number, min: number, max: number): number {
  checkInteger("resolve names", name, value, min, max);
  return value;
}
