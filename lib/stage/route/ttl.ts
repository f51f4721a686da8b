/** A stage that decrements TTL and hop limit as a router does, or sets them. */

import { Direction, type Packet, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import { IcmpError, IcmpErrors } from "../../icmp/icmp_error.ts";
import { Ip } from "../../wire/ip.ts";
import { checkInteger, checkOptions, gotValue, type OptionKinds } from "../../core/options.ts";

// Implementation
const NAMES: OptionKinds<TtlOptions> = { outbound: "any", inbound: "any", errors: IcmpErrors };

// Specification: RFC 791 section 3.1
const MAX_TTL = 255;

/**
 * Change to the TTL (IPv4) or hop limit (IPv6): decrement as routers do (RFC 1812 section 5.3.1, RFC 8200 section 3), keep,
 * set to a number, or raise to at least `min`.
 */
export type TtlRule = "decrement" | "keep" | number | { readonly min: number };

/** Options of {@linkcode ttl}. */
export interface TtlOptions {
  /** Rule for packets from this machine. @default {"decrement"} */
  readonly outbound?: TtlRule;
  /** Rule for packets to this machine. @default {"decrement"} */
  readonly inbound?: TtlRule;
  /** Sends time exceeded for packets that would leave with TTL 0. @default {new IcmpErrors()} */
  readonly errors?: IcmpErrors;
}

/**
 * Decrements TTL (IPv4) or hop limit (IPv6) as a router does, or sets it. `traceroute` shows a stage that decrements.
 *
 * **Outbound** and **inbound**: applies the direction's rule; `decrement` answers with time exceeded instead of sending 0.
 * **Options**: {@linkcode TtlOptions}. **Drops**, by `decrement` only: `ttl exceeded` when no error could be sent, `malformed`.
 * **Limits**: with a number or `min`, packets in a routing loop never expire. Neighbor Discovery, which requires a hop
 * limit of 255 (RFC 4861 section 7.1), is not exempt.
 *
 * @throws {RangeError} when a number is not an integer from 1 to 255.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { PacketBatch, PacketPool, type StageContext } from "@warren/tunnel/core";
 * import { Ipv4 } from "@warren/tunnel/ipv4";
 * import { ttl } from "@warren/tunnel/ttl";
 *
 * const packet = new PacketPool().take(0)!;
 * Ipv4.encode(packet, { src: 0x0a090001, dst: 0xc0000201, protocol: 17, ttl: 64 });
 * const batch = new PacketBatch();
 * batch.push(packet);
 * ttl().outbound!(batch, { now: 0 } as StageContext); // the tunnel does this
 * assert.equal(Ipv4.of(packet)!.ttl, 63);
 * ```
 */
export function ttl(options: TtlOptions = {}): Stage {
  checkOptions("set the ttl", options, NAMES);
  const { outbound = "decrement", inbound = "decrement", errors = new IcmpErrors() } = options;
  const stage: Stage = { name: "ttl" };
  for (const [direction, rule] of [[Direction.Outbound, outbound], [Direction.Inbound, inbound]] as const) {
    if (rule === "keep") continue;
    const pass = rule === "decrement"
      ? (batch: PacketBatch, context: StageContext) => decrement(batch, context, errors)
      : setter(rule, direction === Direction.Outbound ? "outbound" : "inbound");
    if (direction === Direction.Outbound) stage.outbound = pass;
    else stage.inbound = pass;
  }
  return stage;
}

function decrement(batch: PacketBatch, context: StageContext, errors: IcmpErrors): void {
  const { packets, length } = batch;
  for (let i = 0; i < length; i++) {
    const packet = packets[i]!;
    const ip = Ip.of(packet);
    if (ip === undefined) context.drop(packet, "malformed");
    else if (ip.ttl > 1) ip.ttl--;
    else errors.answer(packet, IcmpError.TimeExceeded, context, "ttl exceeded");
  }
}

function setter(rule: Exclude<TtlRule, string>, option: string): (batch: PacketBatch) => void {
  if (typeof rule !== "number" && typeof rule !== "object" || rule === null) {
    throw new TypeError(
      `Cannot set the ttl: ${option} must be "decrement", "keep", an integer from 1 to 255 or { min }, ${
        gotValue(rule)
      }`,
    );
  }
  const isMin = typeof rule === "object";
  const value = isMin ? rule.min : rule;
  checkInteger("set the ttl", isMin ? `${option}.min` : option, value, 1, MAX_TTL);
  const set = (packet: Packet): void => {
    const ip = Ip.of(packet);
    if (ip !== undefined && !(isMin && ip.ttl >= value)) ip.ttl = value;
  };
  return ({ packets, length }) => {
    for (let i = 0; i < length; i++) set(packets[i]!);
  };
}
