/** A stage that routes packets among this machine and the ends of a switchboard. */

import * as field from "../../wire/header_fields.ts";
import { parsePrefix, type Prefix } from "../../wire/address.ts";
import { Direction, type Packet, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import { FlowKey, FlowKind } from "../../table/flow_key.ts";
import { IcmpError, IcmpErrors } from "../../icmp/icmp_error.ts";
import { Ip, Protocol } from "../../wire/ip.ts";
import { checkInteger, checkOption, checkOptions, gotValue, type OptionKinds } from "../../core/options.ts";
import { readPortRange } from "../../wire/port_range.ts";
import { RouteTable } from "../../table/route_table.ts";

// Specification
const { IPV6_DST, IPV6_SRC } = field;

// Implementation
const NAMES: OptionKinds<RouteOptions> = { errors: IcmpErrors };
const POLICY: OptionKinds<Policy> = {
  to: "any",
  src: "texts",
  protocol: "any",
  srcPort: "any",
  dstPort: "any",
  mark: "number",
  end: "number",
  match: "function",
};
const PROTOCOLS: ReadonlyMap<unknown, readonly number[]> = new Map(Object.entries({
  tcp: [Protocol.Tcp],
  udp: [Protocol.Udp],
  icmp: [Protocol.Icmp, Protocol.Icmpv6],
}));
const NO_ROUTE = "no route";

/** Destination of packets: 0 is this machine, 1 and up are the ends of a switchboard. */
export type EndNumber = number;

/** Routes for the packets that meet every given condition; without conditions, for all packets. */
export interface Policy {
  /** Source prefixes or addresses. */
  readonly src?: string | readonly string[];
  /** `tcp`, `udp`, `icmp` (ICMPv4 and ICMPv6), or a protocol number. */
  readonly protocol?: "tcp" | "udp" | "icmp" | number;
  /** Source port, or a range such as `"1024-65535"`. */
  readonly srcPort?: number | string;
  /** Destination port, or a range. */
  readonly dstPort?: number | string;
  /** Mark that a stage has set on the packet. */
  readonly mark?: number;
  /** End that the packet came from; 0 is this machine. */
  readonly end?: EndNumber;
  /** Further condition, called after all others; must be fast and change nothing. */
  readonly match?: (packet: Packet, direction: Direction) => boolean;
  /** Routes by destination prefix; without a matching one the next policy decides. A number is a route for all packets. */
  readonly to: Readonly<Record<string, EndNumber>> | RouteTable<EndNumber> | EndNumber;
}

/** Options of {@linkcode route}. */
export interface RouteOptions {
  /** Sends net unreachable for packets without a route, such as `new IcmpErrors()`. @default {none: they are dropped} */
  readonly errors?: IcmpErrors;
}

/**
 * Routes packets among this machine and the ends of a switchboard by policy; the first policy with a route decides.
 *
 * **Outbound** and **inbound**: sets `packet.to`. Packets to 0 go inbound, all others outbound. A packet that turns round
 * here passes again the stages that it came through, and no others.
 * **Options**: {@linkcode RouteOptions}. **Drops**: `no route`, `malformed`.
 * **Limits**: does not decrement TTL (add `ttl({ outbound: "keep" })`); fragments other than the first match no ports.
 *
 * @throws {SyntaxError} when a prefix or a range of ports does not parse.
 * @throws {TypeError} when a protocol is unknown, or a value has the wrong type.
 * @throws {RangeError} when a port or an end is out of range.
 *
 * @example Two ends, and all packets from one prefix to the second
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketBatch, PacketPool, type StageContext } from "@warren/tunnel/core";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { route } from "@warren/tunnel/route";
 *
 * const stage = route([
 *   { src: "10.9.7.0/24", to: 2 },
 *   { to: { "10.9.0.1/32": 0, "10.9.0.0/16": 1, "0.0.0.0/0": 2 } },
 * ]);
 * const packet = new PacketPool().take(0)!;
 * Ipv4.encode(packet, { src: 0x0a090001, dst: 0x0a090707, protocol: 17 });
 * const batch = new PacketBatch();
 * batch.push(packet);
 * const context: Partial<StageContext> = { emit() {} };
 * stage.outbound!(batch, context as StageContext); // the tunnel does this
 * assert.equal(packet.to, 1);
 * ```
 */
export function route(policies: readonly Policy[], options: RouteOptions = {}): Stage {
  return new Route(policies, options);
}

class Route implements Stage {
  readonly name = "route";
  readonly #policies: readonly CheckedPolicy[];
  readonly #asksPorts: boolean;
  readonly #errors: IcmpErrors | undefined;
  readonly #key = new FlowKey();

  constructor(policies: readonly Policy[], options: RouteOptions) {
    checkOption("route", "policies", policies, "list");
    checkOptions("route", options, NAMES);
    const { errors } = options;
    this.#policies = policies.map((policy, i) => new CheckedPolicy(policy, i + 1));
    this.#asksPorts = this.#policies.some(({ asksPorts }) => asksPorts);
    this.#errors = errors;
  }

  outbound(batch: PacketBatch, context: StageContext): void {
    this.#route(batch, context, Direction.Outbound);
  }

  inbound(batch: PacketBatch, context: StageContext): void {
    this.#route(batch, context, Direction.Inbound);
  }

  #route({ packets, length }: PacketBatch, context: StageContext, direction: Direction): void {
    for (let i = 0; i < length; i++) {
      const packet = packets[i]!;
      const ip = Ip.of(packet);
      if (ip === undefined) {
        context.drop(packet, "malformed");
        continue;
      }
      const end = this.#find(packet, ip, direction);
      if (end === undefined) {
        if (this.#errors === undefined) context.drop(packet, NO_ROUTE);
        else this.#errors.answer(packet, IcmpError.NetUnreachable, context, NO_ROUTE);
        continue;
      }
      packet.to = end;
      // Emits all packets, so that they keep their order.
      context.emit(packet, end === 0 ? Direction.Inbound : Direction.Outbound);
    }
  }

  #find(packet: Packet, ip: Ip, direction: Direction): EndNumber | undefined {
    const from = direction === Direction.Outbound ? 0 : packet.from;
    let key: FlowKey | undefined;
    if (this.#asksPorts && this.#key.read(packet) === FlowKind.Packet) key = this.#key;
    const policies = this.#policies;
    for (let i = 0; i < policies.length; i++) {
      const end = policies[i]!.find(packet, ip, key, from, direction);
      if (end !== undefined) return end;
    }
    return undefined;
  }
}

/** A policy with its prefixes, protocols and ports parsed. */
class CheckedPolicy {
  readonly #src: readonly Prefix[] | undefined;
  readonly #protocols: readonly number[] | undefined;
  readonly #srcPorts: readonly [first: number, last: number] | undefined;
  readonly #dstPorts: readonly [first: number, last: number] | undefined;
  readonly #policy: Policy;
  readonly #table: RouteTable<EndNumber> | undefined;
  readonly #end: EndNumber;
  /** True when it has a condition on ports, so the transport header must be read. */
  readonly asksPorts: boolean;

  constructor(policy: Policy, number: number) {
    const attempt = `route by policy ${number}`;
    checkOptions(attempt, policy, POLICY, ["to"]);
    const { src, protocol, srcPort, dstPort, end, to } = policy;
    if (end !== undefined) checkEnd(attempt, "end", end);
    this.#policy = policy;
    this.#src = src === undefined ? undefined : [src].flat().map(parsePrefix);
    if (typeof protocol === "number") {
      checkInteger(attempt, "protocol", protocol, 0, 255);
      this.#protocols = [protocol];
    } else if (protocol !== undefined) {
      const protocols = PROTOCOLS.get(protocol);
      if (protocols === undefined) {
        throw new TypeError(
          `Cannot ${attempt}: protocol must be tcp, udp, icmp or a number, ${gotValue(protocol)}`,
        );
      }
      this.#protocols = protocols;
    }
    if (srcPort !== undefined) this.#srcPorts = readPortRange(attempt, "srcPort", srcPort, 0);
    if (dstPort !== undefined) this.#dstPorts = readPortRange(attempt, "dstPort", dstPort, 0);
    this.asksPorts = srcPort !== undefined || dstPort !== undefined;
    this.#end = typeof to !== "object" || to === null ? checkEnd(attempt, "to", to) : 0;
    if (to instanceof RouteTable) this.#table = to;
    else if (typeof to !== "number") {
      this.#table = new RouteTable();
      for (const [prefix, end] of Object.entries(to)) this.#table.set(prefix, checkEnd(attempt, "to", end));
    }
  }

  /** The end for a packet; `undefined` when a condition is not met or no route matches. */
  find(
    packet: Packet,
    ip: Ip,
    key: FlowKey | undefined,
    from: EndNumber,
    direction: Direction,
  ): EndNumber | undefined {
    const { mark, end, match } = this.#policy;
    if (mark !== undefined && packet.mark !== mark || end !== undefined && from !== end) return undefined;
    if (this.#protocols !== undefined && !this.#protocols.includes(ip.protocol)) return undefined;
    if (this.#srcPorts !== undefined && !(key !== undefined && isIn(this.#srcPorts, key.srcPort))) {
      return undefined;
    }
    if (this.#dstPorts !== undefined && !(key !== undefined && isIn(this.#dstPorts, key.dstPort))) {
      return undefined;
    }
    if (this.#src !== undefined && !contains(this.#src, packet, ip)) return undefined;
    if (match !== undefined && !match(packet, direction)) return undefined;
    const table = this.#table;
    if (table === undefined) return this.#end;
    return ip.version === 4 ? table.findIpv4(ip.dst) : table.findIpv6(packet.bytes, ip.start + IPV6_DST);
  }
}

function checkEnd(attempt: string, name: string, end: unknown): EndNumber {
  if (Number.isInteger(end) && (end as number) >= 0) return end as number;
  const message = `Cannot ${attempt}: ${name} must be 0 (this machine) or the number of an end, ${
    gotValue(end)
  }`;
  throw typeof end === "number" ? new RangeError(message) : new TypeError(message);
}

function isIn([first, last]: readonly [number, number], port: number): boolean {
  return port >= first && port <= last;
}

function contains(prefixes: readonly Prefix[], packet: Packet, ip: Ip): boolean {
  for (let i = 0; i < prefixes.length; i++) {
    const prefix = prefixes[i]!;
    if (
      ip.version === 4 ? prefix.containsIpv4(ip.src) : prefix.containsIpv6(packet.bytes, ip.start + IPV6_SRC)
    ) {
      return true;
    }
  }
  return false;
}
