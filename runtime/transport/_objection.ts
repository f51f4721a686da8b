/** What may come into a tunnel from outside: IP packets that are not too long. Stages check the rest. */

/** Why these bytes may not come in; `undefined`: they may. */
export function objectionTo(
  bytes: Uint8Array,
  offset: number,
  length: number,
  longest: number,
  tooLong = "longer than the MTU",
): string | undefined {
  const version = length === 0 ? 0 : bytes[offset]! >> 4;
  if (version !== 4 && version !== 6) return "not an IP packet";
  return length > longest ? tooLong : undefined;
}
