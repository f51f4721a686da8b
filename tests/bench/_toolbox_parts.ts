/** What `toolbox` measures: stages with their traffic, and tables. */

import type { PacketBatch, Stage } from "../../lib/core/mod.ts";
import { Capture } from "../../lib/stage/observe/capture.ts";
import { Count } from "../../lib/stage/observe/count.ts";
import { DnsResolver } from "../../lib/stage/dns/mod.ts";
import { compileFilter, type PacketFilter } from "../../lib/filter/mod.ts";
import { Firewall } from "../../lib/stage/firewall/mod.ts";
import { Impairment } from "../../lib/stage/impair/mod.ts";
import { Meter } from "../../lib/stage/observe/meter.ts";
import { mssClamp } from "../../lib/stage/mtu/mss_clamp.ts";
import { Napt44, Nptv6, StaticNat } from "../../lib/stage/nat/mod.ts";
import { Nat64 } from "../../lib/stage/nat64/mod.ts";
import { PathMtu } from "../../lib/stage/mtu/path_mtu.ts";
import { Reassemble } from "../../lib/stage/mtu/reassemble.ts";
import { route } from "../../lib/stage/route/route.ts";
import { RouteTable } from "../../lib/table/route_table.ts";
import { Shaper } from "../../lib/stage/shape/mod.ts";
import { ttl } from "../../lib/stage/route/ttl.ts";
import { encodePacket } from "../kit/packet_text.ts";
import { fullTable } from "../kit/prefixes.ts";
import { Random } from "../../lib/core/random.ts";

// Implementation
const FLOWS = 1000;
const PAYLOAD = 64;
/** The Internet's table, and what its prefixes lead to. */
const PREFIXES = 900_000;
const NEXT_HOPS = 300;
const RULES = 100;
const FILTERS = [
  "tcp port 80 and net 10.0.0.0/8",
  "udp port 53 or host 192.0.2.7",
  "udp[4:2] > 60 and ip[8] = 64",
];
/** A power of two. */
const ADDRESSES = 2 ** 20;
/** What nothing here reaches. */
const FAST = { rateBitsPerSecond: 1e12 };

/** Packets of many flows, and the answers to them as they come to the stage. */
export interface Traffic {
  /** The packets, by flow. */
  readonly outbound: readonly Uint8Array[];
  /** The answers, by flow. */
  readonly inbound: readonly Uint8Array[];
}

/** What is measured. */
export type Part =
  & {
    /** What it is called. */
    readonly name: string;
    /** The most nanoseconds that it may cost. */
    readonly limit?: number;
  }
  & (
    | { readonly stage: () => Stage; readonly traffic: Traffic; readonly lookUps?: undefined }
    /** What does so many look-ups, or a little more, and says how many. */
    | { readonly lookUps: () => (count: number) => number }
  );

/** Flows of UDP from 10.9.0.0/16 to 192.0.2.0/24, whose answers go to these addresses. */
function traffic(answeredTo = inside): Traffic {
  const flows = Array.from({ length: FLOWS }, (_, flow) => flow);
  const line = (flow: number, address: string, isAnswer: boolean) => {
    const [near, far] = [`${address}:${20_000 + flow}`, `192.0.2.${flow % 250}:${flow % 3 === 0 ? 443 : 53}`];
    const [src, dst] = isAnswer ? [far, near] : [near, far];
    return `udp ${src} > ${dst} payload ${PAYLOAD}`;
  };
  return {
    outbound: flows.map((flow) => encodePacket(line(flow, inside(flow), false))),
    inbound: flows.map((flow) => encodePacket(line(flow, answeredTo(flow), true))),
  };
}

function inside(flow: number): string {
  return `10.9.${flow >> 8}.${flow & 255}`;
}

/** The same, but each second flow is one of TCP: half of what passes is for web servers. */
function mixedTraffic(): Traffic {
  const { outbound, inbound } = traffic();
  const tcp = (flow: number, isAnswer: boolean) => {
    const ends = [`${inside(flow)}:${20_000 + flow}`, `192.0.2.${flow % 250}:80`];
    const [src, dst] = isAnswer ? ends.toReversed() : ends;
    return encodePacket(`tcp ${src} > ${dst} A seq 1 ack 1 payload ${PAYLOAD - 12}`);
  };
  const mix = (packets: readonly Uint8Array[], isAnswer: boolean) =>
    packets.map((packet, flow) => flow % 2 === 0 ? packet : tcp(flow, isAnswer));
  return { outbound: mix(outbound, false), inbound: mix(inbound, true) };
}

/** Packets of IPv6 from one prefix, whose answers go to another. */
function traffic6(near: string, answeredTo: string): Traffic {
  const flows = Array.from({ length: FLOWS }, (_, flow) => flow);
  const line = (flow: number, prefix: string, isAnswer: boolean) => {
    const ends = [
      `[${prefix}::${(flow + 1).toString(16)}]:${20_000 + flow}`,
      `[2001:db8:1::${flow % 250}]:443`,
    ];
    const [src, dst] = isAnswer ? ends.toReversed() : ends;
    return encodePacket(`udp ${src} > ${dst} payload ${PAYLOAD}`);
  };
  return {
    outbound: flows.map((flow) => line(flow, near, false)),
    inbound: flows.map((flow) => line(flow, answeredTo, true)),
  };
}

/** Packets of IPv6 hosts to IPv4 ones behind 64:ff9b::/96, and the answers of these. */
function traffic64(): Traffic {
  const flows = Array.from({ length: FLOWS }, (_, flow) => flow);
  const host = (flow: number) => flow % 250;
  return {
    outbound: flows.map((flow) =>
      encodePacket(
        `udp [fd00::${(flow + 1).toString(16)}]:${20_000 + flow} > [64:ff9b::c000:2${
          host(flow).toString(16).padStart(2, "0")
        }]:443 payload ${PAYLOAD}`,
      )
    ),
    inbound: flows.map((flow) =>
      encodePacket(`udp 192.0.2.${host(flow)}:443 > 198.51.100.1:${20_000 + flow} payload ${PAYLOAD}`)
    ),
  };
}

/** Look-ups of random addresses in the Internet's table. */
function lookUps(): (count: number) => number {
  const routes = new RouteTable<number>();
  for (const prefix of fullTable(PREFIXES, 1)) routes.set(prefix, routes.size % NEXT_HOPS);
  const random = new Random(2);
  const addresses = Uint32Array.from({ length: ADDRESSES }, () => random.below(2 ** 32));
  let found = 0;
  return (count) => {
    for (let i = 0; i < count; i++) {
      if (routes.findIpv4(addresses[i & ADDRESSES - 1]!) !== undefined) found++;
    }
    if (found === 0) throw new Error("Cannot measure: no route was found");
    return count;
  };
}

/** A firewall with a hundred rules, of which the last lets the traffic out. */
function firewall(): Firewall {
  const closed = Array.from({ length: RULES - 1 }, (_, i) => ({
    verdict: "drop" as const,
    src: `172.16.${i}.0/24`,
    protocol: i % 2 === 0 ? "tcp" as const : "udp" as const,
    dstPort: 1000 + i,
  }));
  return new Firewall({ rules: [...closed, { verdict: "allow", direction: "outbound" }], default: "drop" });
}

/** A stage that asks a filter about each packet. */
function asking(filter: PacketFilter): Stage {
  let matched = 0;
  const ask = ({ packets, length }: PacketBatch) => {
    for (let i = 0; i < length; i++) if (filter(packets[i]!)) matched++;
  };
  return { name: "asking", outbound: ask, inbound: ask, save: () => matched };
}

/** All parts. */
export function parts(): Part[] {
  const plain = traffic();
  const mixed = mixedTraffic();
  const translated = traffic(() => "198.51.100.1");
  const mapped = traffic((flow) => `198.51.${flow >> 8}.${flow & 255}`);
  const rules = [{ inside: "10.9.0.0/16", outside: "198.51.0.0/16" }];
  return [
    { name: "route look-up", limit: 150, lookUps },
    {
      name: "napt44",
      limit: 250,
      stage: () => new Napt44({ outside: "198.51.100.1", inside: "10.9.0.0/16" }),
      traffic: translated,
    },
    { name: "firewall, 100 rules", limit: 250, stage: firewall, traffic: plain },
    ...FILTERS.map((text) => ({
      name: text,
      limit: 60,
      stage: () => asking(compileFilter(text)),
      traffic: mixed,
    })),
    {
      name: "nat64",
      stage: () => new Nat64({ outside: "198.51.100.1" }),
      traffic: traffic64(),
    },
    { name: "static nat", stage: () => new StaticNat({ rules }), traffic: mapped },
    {
      name: "nptv6",
      stage: () => new Nptv6({ inside: "fd01:203:405::/48", outside: "2001:db8:1::/48" }),
      traffic: traffic6("fd01:203:405:1", "2001:db8:1:d550"),
    },
    {
      name: "route",
      stage: () => route([{ to: { "192.0.2.0/24": 1, "10.9.0.0/16": 0 } }]),
      traffic: plain,
    },
    { name: "ttl", stage: () => ttl(), traffic: plain },
    { name: "mss clamp", stage: () => mssClamp({ mtu: 1400 }), traffic: plain },
    { name: "reassemble", stage: () => new Reassemble(), traffic: plain },
    { name: "path mtu", stage: () => new PathMtu({ mtu: 1400 }), traffic: plain },
    {
      name: "shaper below its rate",
      stage: () => new Shaper({ outbound: FAST, inbound: FAST }),
      traffic: plain,
    },
    {
      name: "impairment, loss",
      stage: () => new Impairment({ seed: 1, outbound: { loss: 0 } }),
      traffic: plain,
    },
    { name: "dns, not asked", stage: () => new DnsResolver({ address: "10.9.255.53" }), traffic: plain },
    { name: "count", stage: () => new Count(), traffic: plain },
    { name: "meter", stage: () => new Meter(), traffic: plain },
    { name: "capture", stage: () => new Capture({ write: () => {} }), traffic: plain },
  ];
}
