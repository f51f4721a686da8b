/** What a resolver is made of, whom it asks, and what it counts. */

import type { IcmpErrors } from "../../icmp/icmp_error.ts";
import type { DnsCacheOptions } from "./_cache.ts";
import type { BlockList } from "./block_list.ts";
import type { DnsRecord } from "./codec.ts";
import type { FakeIp } from "./fake_ip.ts";

/** A name server to ask: what `runtime/` makes, or a script's own. */
export interface DnsUpstream {
  /**
   * Asks, and returns the answer, as messages without a length in front (RFC 1035 section 4). The query's id is 0; the
   * answer's does not matter. Whatever it rejects with is a failure. The signal aborts what nobody waits for any more.
   *
   * An upstream that answers FORMERR, NOTIMP or BADVERS is asked once more without EDNS (RFC 6891 section 7), and all
   * queries of the next ten minutes then have none.
   */
  query(message: Uint8Array, signal: AbortSignal): Promise<Uint8Array>;
}

/** Options for {@linkcode DnsResolver}. */
export interface DnsResolverOptions {
  /** Where queries are answered: addresses of either family that nobody else in the tunnel has. */
  address: string | readonly string[];
  /** Who is asked, in this order: the next one when one fails. @default {nobody: REFUSED} */
  upstream?: DnsUpstream | readonly DnsUpstream[];
  /**
   * Upstreams for a domain and all names below it; the longest domain counts. These names get no synthetic addresses of
   * `fakeIp`. @default {{}}
   */
  split?: Readonly<Record<string, DnsUpstream | readonly DnsUpstream[]>>;
  /**
   * Records of one's own. A line is `NAME [TTL] TYPE DATA`, of type A, AAAA, CAA, CNAME, MX, NS, PTR, SRV or TXT; without
   * a TTL it is 60 s. `*.NAME` is for all names below that are not there themselves (RFC 4592). Who has an address also
   * has its PTR. A name that is here is here with all its records: another type of it does not exist. @default {[]}
   */
  records?: string | Iterable<string | DnsRecord>;
  /** Domains in which there is nothing but these records: other names do not exist. @default {[]} */
  zones?: string | readonly string[];
  /**
   * Names that are blocked, and names whose answer leads to one of them by CNAME, DNAME, HTTPS or SVCB. @default {none}
   */
  block?: BlockList | readonly BlockList[];
  /** Names that are not blocked, whatever `block` says and wherever their answers lead. @default {none} */
  allow?: BlockList | Iterable<string>;
  /** What is said of a blocked name: there is none, `0.0.0.0` and `::`, or these addresses. @default {"nxdomain"} */
  blockAnswer?: "nxdomain" | "null" | readonly string[];
  /** For how long (seconds). @default {60} */
  blockTtl?: number;
  /** Gives synthetic addresses to names, but not to those in `split`, which get their real ones. @default {none} */
  fakeIp?: FakeIp;
  /**
   * Special-use names that upstreams are asked for, with all names below them; `true`: all of them. Without this, names
   * that have no meaning in the public DNS stay here: `localhost` has loopback addresses; `alt`, `invalid`, `local`,
   * `onion` and `test` do not exist, nor do names in `home.arpa`, `service.arpa` and the reverse zones of private, shared,
   * link-local, loopback and documentation addresses; `resolver.arpa` is empty (IANA "Special-Use Domain Names" and
   * "Locally-Served DNS Zones"). `records`, `zones` and `split` go before them. @default {[]}
   */
  forwardSpecial?: true | string | readonly string[];
  /** What is kept of upstreams' answers; `false`: nothing. @default {{}} */
  cache?: DnsCacheOptions | false;
  /** How long an upstream has to answer (milliseconds). @default {2000} */
  timeout?: number;
  /**
   * How many different questions are asked at a time. When all places are taken, the client with the most loses its oldest
   * question, which gets SERVFAIL, to a client with fewer. Where none has more than a sixteenth of them, the oldest of all
   * makes room. A client is an IPv4 address or the /64 of an IPv6 address. @default {256}
   */
  inFlight?: number;
  /** The most queries that wait for upstreams, shared in the same way. @default {512} */
  waiting?: number;
  /**
   * How many TCP connections clients may have; 0 refuses all. When all places are taken, the client with the most loses one,
   * an idle one if it has one, to a client with fewer. Where none has more than a sixteenth of them, the one that has been
   * idle for longest makes room. @default {256}
   */
  connections?: number;
  /** Time that a TCP connection may be idle before it is closed (milliseconds). @default {10000} */
  idleTimeout?: number;
  /**
   * The longest answer over UDP (bytes of DNS from 512 to 1452). Of a longer one, additional records are left out, then
   * authority records that it does not need; TC says that its own records do not fit. @default {1232}
   */
  answerLimit?: number;
  /** Answers TCP packets that belong to no connection with resets, and limits how often. @default {new IcmpErrors()} */
  errors?: IcmpErrors;
}

/** What a {@linkcode DnsResolver} has counted. */
export interface DnsCounters {
  /** Queries with a question. */
  queries: number;
  /** Answered from records of one's own. */
  records: number;
  /** Blocked. */
  blocked: number;
  /** Answered with synthetic addresses, and with the names of those. */
  fakes: number;
  /** Special-use names that were answered without an upstream. */
  special: number;
  /** Answered from the cache. */
  cached: number;
  /** Answered from the cache, with what was too old. */
  stale: number;
  /** Times that an upstream was asked. */
  asked: number;
  /** Queries that joined one for the same. */
  joined: number;
  /** Queries sent again while they were waited for, which were dropped. */
  repeated: number;
  /** Questions and waiting queries that made room for those of a client with fewer. */
  displaced: number;
  /** Times that an upstream failed, was too late, or had nothing but a failure to say. */
  failures: number;
  /** Answers of upstreams that were malformed, or to another question. */
  badAnswers: number;
  /** Queries answered with SERVFAIL. */
  unanswered: number;
  /** Queries that were malformed, or of a kind that is refused. */
  refused: number;
  /** Answers with TC: what a client needs of them did not fit. */
  truncated: number;
}

/** One value, or several, as several. For the resolver. */
export function list<Value>(values: Value | readonly Value[]): readonly Value[] {
  return Array.isArray(values) ? values : [values as Value];
}

/** @throws {RangeError} unless the value is a whole number of this range. For the resolver. */
export function checkRange(name: string, value: number, least: number, most: number): number {
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new RangeError(`Cannot use ${name} ${value}: it is no whole number from ${least} to ${most}`);
}
