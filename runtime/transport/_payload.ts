/** Payloads of transports: what may come into a tunnel from outside. Stages check the rest. */

import type { TunnelEnd } from "../../lib/core/mod.ts";
import * as field from "../../lib/wire/header_fields.ts";

// Specification
const { IPV4_HEADER, IPV6_HEADER } = field;

/** IP packets, or any bytes. */
export type Payload = NonNullable<TunnelEnd["payload"]>;

/** @throws {TypeError} for a payload that there is not. */
export function checkPayload(transport: string, payload: Payload): void {
  if (payload === "ip" || payload === "any") return;
  throw new TypeError(
    `Cannot open a ${transport} transport: payload must be "ip" or "any", got ${Deno.inspect(payload)}`,
  );
}

/** The reason, for counters, why bytes may not come in; `undefined` if they may: with `"ip"`, those with a whole IP header. */
export function refusalReason(
  payload: Payload,
  bytes: Uint8Array,
  offset: number,
  length: number,
  longest: number,
): string | undefined {
  if (payload === "any") {
    if (length === 0) return "empty";
  } else {
    const version = length === 0 ? 0 : bytes[offset]! >> 4;
    if (version === 4 ? length < IPV4_HEADER : version !== 6 || length < IPV6_HEADER) {
      return "not an IP packet";
    }
  }
  return length > longest ? "longer than the MTU" : undefined;
}
