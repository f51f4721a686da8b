/** Helpers of the resolver tests: queries in packets, decoded answers, and simulated upstreams. */

import { parseIpv4, parseIpv6 } from "@warren/tunnel/address";
import { Direction, type Stage } from "@warren/tunnel/core";
import {
  decodeMessage,
  type DnsMessage,
  type DnsRecord,
  type DnsUpstream,
  encodeMessage,
} from "@warren/tunnel/dns";
import { Udp } from "@warren/tunnel/udp";
import { Ipv4 } from "@warren/tunnel/ipv4";
import { Ipv6 } from "@warren/tunnel/ipv6";
import { fail } from "node:assert/strict";
import { TestPipeline } from "../../../kit/pipeline.ts";
import { packetOf, wrongChecksum } from "../../../kit/packets.ts";

export const RESOLVER = "10.9.0.53";
export const RESOLVER6 = "fd09::53";

/** Differences from an ordinary query. */
export interface Asking {
  type?: string;
  id?: number;
  /** EDNS with this payload size. */
  edns?: number;
  dnssecOk?: boolean;
  src?: string;
  srcPort?: number;
  dst?: string;
  flags?: number;
}

// Specification: RFC 1035 section 4.1.1
const RECURSION_DESIRED = 0x0100;

/** A query's message. */
export function queryOf(name: string, asking: Asking = {}): Uint8Array {
  const { type = "A", id = 7, edns, dnssecOk = false, flags = RECURSION_DESIRED } = asking;
  const opt = { name: ".", type: "OPT", udpPayloadSize: edns, flags: dnssecOk ? 0x8000 : 0 } as DnsRecord;
  return encodeMessage({
    type: "query",
    id,
    flags,
    questions: [{ name, type }],
    additionals: edns === undefined ? [] : [opt],
  });
}

/** A message in a packet to the resolver. */
export function packetTo(message: Uint8Array, asking: Asking = {}): Uint8Array {
  const { dst = RESOLVER, src = dst.includes(":") ? "fd09::1" : "10.9.0.1", srcPort = 5000 } = asking;
  const packet = packetOf(message);
  Udp.encode(packet, { srcPort, dstPort: 53 });
  if (dst.includes(":")) Ipv6.encode(packet, { src: parseIpv6(src), dst: parseIpv6(dst), nextHeader: 17 });
  else Ipv4.encode(packet, { src: parseIpv4(src), dst: parseIpv4(dst), protocol: 17 });
  return packet.data.slice();
}

/** An answer as it came to the device. */
export interface Answered {
  message: DnsMessage;
  /** The bytes of DNS. */
  bytes: Uint8Array;
  /** Such as `10.9.0.53:53 > 10.9.0.1:5000`. */
  route: string;
  rcode: string;
  isTruncated: boolean;
  /** `NAME TTL TYPE DATA` of each answer. */
  records: string[];
}

/** Takes a packet apart that must be a right DNS answer. */
export function readAnswer(bytes: Uint8Array): Answered {
  const wrong = wrongChecksum(bytes);
  if (wrong !== "") fail(`wrong checksum: ${wrong}`);
  const packet = packetOf(bytes);
  const udp = Udp.of(packet)!;
  const { ip } = udp;
  const payload = udp.payload.slice();
  const message = decodeMessage(payload) ?? fail(`malformed: ${payload.toHex()}`);
  return {
    message,
    bytes: payload,
    route: `${ip.srcText}:${udp.srcPort} > ${ip.dstText}:${udp.dstPort}`,
    rcode: message.rcode!,
    isTruncated: (message.flags! & 0x0200) !== 0,
    records: message.answers!.map(formatRecord),
  };
}

export function formatRecord({ name, ttl, type, data }: DnsRecord): string {
  const text = Array.isArray(data) ? data.map((part) => new TextDecoder().decode(part)).join("|") : data;
  return `${name} ${ttl} ${type} ${typeof text === "string" ? text : JSON.stringify(text)}`;
}

/** A resolver in a pipeline. */
export class Rig {
  readonly test: TestPipeline;

  constructor(...stages: Stage[]) {
    this.test = new TestPipeline(...stages);
    this.test.settle();
  }

  /** Sends a query; what comes of it is among {@linkcode Rig.answers}. */
  ask(name: string, asking: Asking = {}): void {
    this.test.send(Direction.Outbound, packetTo(queryOf(name, asking), asking));
    this.test.settle();
  }

  /** The answers that have come. */
  answers(): Answered[] {
    this.test.settle();
    const { far, device } = this.test.receive();
    if (far.length > 0) fail(`${far.length} packets went onward`);
    if (!this.test.balanced) fail("the books do not balance");
    return device.map(readAnswer);
  }

  /** Sends a query and returns its one answer, when upstreams have had their say. */
  async answer(name: string, asking: Asking = {}): Promise<Answered> {
    this.ask(name, asking);
    await this.turns();
    const answers = this.answers();
    if (answers.length !== 1) fail(`${answers.length} answers instead of one`);
    return answers[0]!;
  }

  /** Lets time pass. */
  after(milliseconds: number): void {
    this.test.now += milliseconds;
    this.test.settle();
  }

  /** Lets promises settle that need no event of the system. */
  async turns(): Promise<void> {
    for (let i = 0; i < 10; i++) await Promise.resolve();
    this.test.settle();
  }

  /** Number of dropped packets, by reason. */
  get dropped(): Record<string, number> {
    return this.test.pipeline.ledger.counters.snapshot(0).dropped;
  }
}

/** The answer to a query's message, with these records. */
export function reply(query: Uint8Array, answers: DnsRecord[], more: DnsMessage = {}): Uint8Array {
  const { id, questions } = decodeMessage(query)!;
  const { flags = 0, rcode, ...others } = more;
  const bytes = encodeMessage({
    type: "response",
    id: id!,
    flags,
    questions: questions!,
    answers,
    ...others,
  });
  const codes: Record<string, number> = { SERVFAIL: 2, NXDOMAIN: 3, REFUSED: 5 };
  bytes[3]! |= codes[rcode ?? ""] ?? 0;
  return bytes;
}

/** An upstream whose queries are answered when the test says so. */
export class PlayedUpstream implements DnsUpstream {
  readonly queries: { message: Uint8Array; signal: AbortSignal; name: string; type: string }[] = [];
  readonly #answers: PromiseWithResolvers<Uint8Array>[] = [];

  query(message: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const [{ name, type }] = decodeMessage(message)!.questions! as [{ name: string; type: string }];
    this.queries.push({ message, signal, name, type });
    const answer = Promise.withResolvers<Uint8Array>();
    this.#answers.push(answer);
    return answer.promise;
  }

  /** Answers the oldest query that has none. */
  answer(answers: DnsRecord[], more: DnsMessage = {}): void {
    const at = this.queries.length - this.#answers.length;
    this.#answers.shift()!.resolve(reply(this.queries[at]!.message, answers, more));
  }

  /** The oldest query's answer, as bytes of anything. */
  say(bytes: unknown): void {
    this.#answers.shift()!.resolve(bytes as Uint8Array);
  }

  fail(): void {
    this.#answers.shift()!.reject(new Error("unreachable"));
  }
}

/** An upstream that answers at once. */
export function answering(
  records: (name: string, type: string) => DnsRecord[],
  more: DnsMessage = {},
): DnsUpstream {
  return {
    query: (message) => {
      const [{ name, type }] = decodeMessage(message)!.questions! as [{ name: string; type: string }];
      return Promise.resolve(reply(message, records(name, type), more));
    },
  };
}

export function address(name: string, data = "192.0.2.7", ttl = 300): DnsRecord {
  return { name, type: data.includes(":") ? "AAAA" : "A", ttl, data };
}

export function soa(name: string, ttl: number, minimum: number): DnsRecord {
  const data = {
    mname: "ns.example",
    rname: "mail.example",
    serial: 1,
    refresh: 2,
    retry: 3,
    expire: 4,
    minimum,
  };
  return { name, type: "SOA", ttl, data };
}
