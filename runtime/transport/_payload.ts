/** Minimal check of received payloads, before they enter a tunnel as packets. Stages check the rest. */

import type { TunnelEnd } from "../../lib/core/mod.ts";
import * as field from "../../lib/wire/header_fields.ts";

// Specification
const { IPV4_HEADER, IPV6_HEADER } = field;

/** Content of a transport: IP packets or any bytes. */
export type Payload = NonNullable<TunnelEnd["payload"]>;

/** Values of {@linkcode Payload}. */
export const PAYLOADS: readonly Payload[] = ["ip", "any"];

/** Returns the drop reason for an invalid payload: with `"any"` an empty one, with `"ip"` one without an IP header. */
export function dropReason(
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
