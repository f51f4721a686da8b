/** What `toolbox` measures: stages with their traffic, and tables. */

import type { Stage } from "../../lib/core/mod.ts";
import { Capture } from "../../lib/capture/mod.ts";
import { Count } from "../../lib/count.ts";
import { Meter } from "../../lib/meter.ts";
import { encodePacket } from "../kit/packet_text.ts";

// Implementation
const FLOWS = 1000;
const PAYLOAD = 64;

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
    | { readonly stage: () => Stage; readonly traffic: Traffic; readonly call?: undefined }
    /** Does so many look-ups, or a little more, and says how many. */
    | { readonly call: (count: number) => number }
  );

/** Flows of TCP and UDP from 10.9.0.0/16 to 192.0.2.0/24, whose answers go to these addresses. */
function traffic(answeredTo = (flow: number) => `10.9.${flow >> 8}.${flow & 255}`): Traffic {
  const flows = Array.from({ length: FLOWS }, (_, flow) => flow);
  const line = (flow: number, address: string, isAnswer: boolean) => {
    const [near, far] = [`${address}:${20_000 + flow}`, `192.0.2.${flow % 250}:${flow % 3 === 0 ? 443 : 53}`];
    const [src, dst] = isAnswer ? [far, near] : [near, far];
    return `udp ${src} > ${dst} payload ${PAYLOAD}`;
  };
  return {
    outbound: flows.map((flow) => encodePacket(line(flow, `10.9.${flow >> 8}.${flow & 255}`, false))),
    inbound: flows.map((flow) => encodePacket(line(flow, answeredTo(flow), true))),
  };
}

/** All parts. */
export function parts(): Part[] {
  const plain = traffic();
  return [
    { name: "count", stage: () => new Count(), traffic: plain },
    { name: "meter", stage: () => new Meter(), traffic: plain },
    { name: "capture", stage: () => new Capture(() => {}), traffic: plain },
  ];
}
