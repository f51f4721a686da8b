/** Random rules and packets for the firewall, of few values, so that they match. */

import type { FirewallRule } from "@warren/tunnel/firewall";
import type { Random } from "../../../../lib/core/random.ts";
import { encodePacket } from "../../../kit/packet_text.ts";

const INSIDE = ["10.9.0.1", "10.9.0.2", "fd09::1"];
const OUTSIDE = ["192.0.2.1", "192.0.2.130", "198.51.100.1", "2001:db8::1", "2001:db8:0:1::1"];
const PREFIXES = [
  ...["10.9.0.0/24", "10.9.0.1", "0.0.0.0/0", "192.0.2.0/25", "192.0.2.0/24", "198.51.100.1/32"],
  ...["fd09::/64", "::/0", "2001:db8::/64", "2001:db8::/32", "2001:db8:0:1::1"],
];
const PORTS = [22, 53, 80, 5000, 5001];
const FLAGS = ["S", "S", "SA", "A", "A", "PA", "FA", "R", "RA", "F", "FPU"];

function pick<Value>(random: Random, values: readonly Value[]): Value {
  return values[random.below(values.length)]!;
}

/** One value of a list, or an array of some. */
function some<Value>(random: Random, values: readonly Value[]): Value | Value[] {
  return random.below(2) === 0
    ? pick(random, values)
    : Array.from({ length: 1 + random.below(3) }, () => pick(random, values));
}

/** A random rule. */
export function randomRule(random: Random, options: { states: boolean; rates: boolean }): FirewallRule {
  const maybe = <Field extends object>(make: () => Field): Partial<Field> =>
    random.below(3) === 0 ? make() : {};
  const ports = () => some(random, [...PORTS, "50-60", "5000-5001", "0-65535"]);
  const kind = random.below(4);
  return {
    verdict: pick(random, ["allow", "allow", "drop", "reject"]),
    ...maybe(() => ({ direction: pick(random, ["outbound", "inbound"]) })),
    ...maybe(() => ({ src: some(random, PREFIXES) })),
    ...maybe(() => ({ dst: some(random, PREFIXES) })),
    ...kind === 0 && {
      ...maybe(() => ({ protocol: pick(random, ["tcp", "udp", ["tcp", "udp"], 17]) })),
      ...maybe(() => ({ srcPort: ports() })),
      dstPort: ports(),
    },
    ...kind === 1 && { protocol: pick(random, ["icmp", "icmpv6", 253, [6, 253]]) },
    ...kind === 2 && {
      protocol: ["icmp", "icmpv6"],
      icmpType: some(random, [0, 3, 8, 13, 128, 129, 135]),
    },
    ...kind === 3 && { tcpFlags: pick(random, ["S/SA", "/S", "A/A", "FPU/FSRPAU"]) },
    ...options.states && maybe(() => ({
      state: some(random, ["new", "established", "related", "invalid"]),
    })),
    ...options.rates && maybe(() => ({
      rate: { packetsPerSecond: 1 + random.below(20), perSource: random.below(2) === 0 },
    })),
  } as FirewallRule;
}

function randomEnds(random: Random): [inside: string, outside: string] {
  const inside = pick(random, INSIDE);
  return [inside, pick(random, OUTSIDE.filter((address) => address.includes(":") === inside.includes(":")))];
}

/** A random packet as text, between an inside and an outside address of one version. */
export function randomPacket(random: Random, isOutbound: boolean, ends = randomEnds(random)): string {
  const [inside, outside] = ends;
  const is6 = inside.includes(":");
  const [src, dst] = isOutbound ? [inside, outside] : [outside, inside];
  const at = (address: string, port: number) => is6 ? `[${address}]:${port}` : `${address}:${port}`;
  const [srcPort, dstPort] = [pick(random, PORTS), pick(random, PORTS)];
  switch (random.below(7)) {
    case 0:
    case 1:
      return `udp ${at(src, srcPort)} > ${at(dst, dstPort)} payload ${random.below(9)}`;
    case 2:
    case 3: {
      const [seq, ack] = [100 + random.below(4), 100 + random.below(4)];
      const numbers = `seq ${seq} ack ${ack} payload ${random.below(3)}`;
      return `tcp ${at(src, srcPort)} > ${at(dst, dstPort)} ${pick(random, FLAGS)} ${numbers}`;
    }
    case 4: {
      const type = is6 ? pick(random, [128, 129, 135]) : pick(random, [0, 8, 13, 9]);
      return `icmp ${src} > ${dst} type ${type} id ${random.below(3)} seq 1 payload 20`;
    }
    case 5: {
      // Sometimes it is about another host's packet.
      const about = randomPacket(random, !isOutbound, random.below(8) === 0 ? undefined : ends);
      if (about.startsWith("icmp") || about.includes("[") !== is6) return `ip ${src} > ${dst} protocol 253`;
      return `icmp ${src} > ${dst} type ${is6 ? 1 : 3} code 3 { ${about} }`;
    }
    default:
      return `ip ${src} > ${dst} protocol 253 ident ${random.below(3)} offset ${8 * random.below(2)} "x"`;
  }
}

/** A random packet as bytes. */
export function randomBytes(random: Random, isOutbound: boolean): Uint8Array {
  return encodePacket(randomPacket(random, isOutbound));
}
