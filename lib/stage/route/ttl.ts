/** The time to live, as routers count it down, or as one wants it to be. */

import { Direction, type Packet, type PacketBatch, type Stage, type StageContext } from "../../core/mod.ts";
import { IcmpError, IcmpErrors } from "../../icmp/icmp_error.ts";
import { Ip } from "../../wire/ip.ts";
import { checkNames, type OptionNames } from "../../core/options.ts";

// Implementation
const NAMES: OptionNames<TtlOptions> = { outbound: "optional", inbound: "optional", errors: "optional" };

// Specification: RFC 791 section 3.1
const MAX_TTL = 255;

/**
 * What becomes of a packet's time to live: one less, as routers do (RFC 1812 section 5.3.1, RFC 8200 section 3); what it
 * is; this number; or this number where it is less.
 */
export type TtlRule = "decrement" | "keep" | number | { readonly least: number };

/** Options for {@linkcode ttl}. */
export interface TtlOptions {
  /** For packets from this machine. @default {"decrement"} */
  readonly outbound?: TtlRule;
  /** For packets to this machine. @default {"decrement"} */
  readonly inbound?: TtlRule;
  /** What answers packets whose time is over. @default {new IcmpErrors()} */
  readonly errors?: IcmpErrors;
}

/**
 * Counts down each packet's time to live (IPv4) or hop limit (IPv6), as a router does, or sets it.
 *
 * **Outbound** and **inbound**: each by its own rule. A packet that would leave with 0 is answered with time exceeded,
 * so `traceroute` shows this stage; one without a right IP header is dropped as `malformed` where it would be counted
 * down.
 *
 * **Options**: `outbound`, `inbound`: `"decrement"`, `"keep"`, a number to set, or `{ least }` to raise to; both count
 * down. `errors`: what answers, with its source address and rate.
 *
 * **Counters**: those of `errors`.
 *
 * **Limits**: a number that is set, or raised to, lets packets go round for ever where routes make a ring. Neighbor
 * Discovery wants a hop limit of 255 (RFC 4861 section 7.1) and is not spared.
 *
 * @throws {RangeError} when a number is not a whole one from 1 to 255.
 *
 * @example A hop of its own, and all answers alike
 * ```ts
 * import assert from "node:assert/strict";
 * import { IcmpErrors } from "@warren/tunnel/icmp_error";
 * import { ttl } from "@warren/tunnel/ttl";
 *
 * const stage = ttl({ errors: new IcmpErrors({ address: "10.9.0.254" }), inbound: 64 });
 * assert.equal(stage.name, "ttl");
 * ```
 */
export function ttl(options: TtlOptions = {}): Stage {
  checkNames("count down", options, NAMES);
  const { outbound = "decrement", inbound = "decrement", errors = new IcmpErrors() } = options;
  const stage: Stage = { name: "ttl" };
  for (const [direction, rule] of [[Direction.Outbound, outbound], [Direction.Inbound, inbound]] as const) {
    if (rule === "keep") continue;
    const pass = rule === "decrement"
      ? (batch: PacketBatch, context: StageContext) => decrement(batch, context, errors)
      : setter(rule);
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

function setter(rule: Exclude<TtlRule, string>): (batch: PacketBatch) => void {
  const isLeast = typeof rule !== "number";
  const value = isLeast ? rule.least : rule;
  if (!(Number.isInteger(value) && value >= 1 && value <= MAX_TTL)) {
    throw new RangeError(`Cannot set a ttl of ${value}: it is a whole number from 1 to ${MAX_TTL}`);
  }
  const set = (packet: Packet): void => {
    const ip = Ip.of(packet);
    if (ip !== undefined && !(isLeast && ip.ttl >= value)) ip.ttl = value;
  };
  return ({ packets, length }) => {
    for (let i = 0; i < length; i++) set(packets[i]!);
  };
}
