/** What may come into a tunnel from outside: packets with a whole IP header that are not too long. Stages check the rest. */

// Specification: RFC 791 section 3.1, RFC 8200 section 3
const IPV4_HEADER = 20;
const IPV6_HEADER = 40;

/** Why these bytes may not come in; `undefined`: they may. */
export function objectionTo(
  bytes: Uint8Array,
  offset: number,
  length: number,
  longest: number,
  tooLong = "longer than the MTU",
): string | undefined {
  const version = length === 0 ? 0 : bytes[offset]! >> 4;
  if (version === 4 ? length < IPV4_HEADER : version !== 6 || length < IPV6_HEADER) return "not an IP packet";
  return length > longest ? tooLong : undefined;
}
