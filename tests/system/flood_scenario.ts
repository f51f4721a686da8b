/**
 * A firewall and a NAT under a flood of new flows, in a process of its own without permissions, which prints {@linkcode Flood}
 * as JSON.
 */

import { Direction } from "../../lib/core/mod.ts";
import { Firewall } from "../../lib/stage/firewall/mod.ts";
import { Napt44 } from "../../lib/stage/nat/mod.ts";
import { encodePacket } from "../kit/packet_text.ts";
import { TestPipeline } from "../kit/pipeline.ts";
import { Random } from "../../lib/core/random.ts";

const FLOWS = 1_000_000;
/** Between two packets of the connection that has to live. */
const PAUSE = 5000;
const BURST = 64;
const MEBIBYTE = 1024 * 1024;
const OUTSIDE = "198.51.100.1";

/** What came of it. */
export interface Flood {
  /** Resident memory after the first million flows, and after the second (MiB). */
  readonly resident: readonly [number, number];
  /** Flows that are known, and how many there may be. */
  readonly known: readonly { readonly name: string; readonly size: number; readonly capacity: number }[];
  /** Packets of the connection that were sent, and that came back. */
  readonly sent: number;
  readonly answered: number;
  /** Packets that left with an inside source. */
  readonly leaked: number;
  readonly balanced: boolean;
}

const CAPACITY = 65_536;
const firewall = new Firewall({ capacity: CAPACITY });
const nat = new Napt44({
  outside: OUTSIDE,
  inside: "10.0.0.0/8",
  capacity: CAPACITY,
  flowsPerHost: CAPACITY,
});
const test = new TestPipeline(firewall, nat);
const random = new Random(7);
let [sent, answered, leaked] = [0, 0, 0];

/** Sends packets, and gives back what comes of them to the far end. */
function pass(direction: Direction, ...packets: Uint8Array[]): { far: Uint8Array[]; device: Uint8Array[] } {
  for (const packet of packets) test.send(direction, packet);
  test.settle();
  const received = test.receive();
  for (const packet of received.far) if (packet[12] === 10) leaked++;
  return received;
}

const near = "10.9.0.1:5000";
const far = "192.0.2.1:443";
/** A packet of the connection, and the answer to it. */
function talk(flags: string, seq: number, ack: number, answer: string): void {
  sent++;
  const out = pass(
    Direction.Outbound,
    encodePacket(`tcp ${near} > ${far} ${flags} seq ${seq} ack ${ack} "a"`),
  );
  if (out.far.length === 0) return;
  const port = out.far[0]![20]! << 8 | out.far[0]![21]!;
  const back = pass(Direction.Inbound, encodePacket(`tcp ${far} > ${OUTSIDE}:${port} ${answer}`));
  answered += back.device.length;
}

talk("S", 100, 0, "SA seq 500 ack 102");
let [seq, ack] = [102, 501];
const syn = encodePacket("tcp 10.0.0.0:1 > 192.0.2.9:80 S seq 1");
const datagram = encodePacket("udp 10.0.0.0:1 > 192.0.2.9:53");

/** So many flows of TCP and UDP, each of one packet, from everywhere inside to everywhere. */
function flood(flows: number): void {
  for (let flow = 0; flow < flows; flow += BURST) {
    const packets = Array.from({ length: BURST }, (_, i) => {
      const packet = (i % 2 === 0 ? syn : datagram).slice();
      for (const at of [14, 15, 20, 21]) packet[at] = random.below(256);
      packet[13] = 64 + random.below(128);
      packet[19] = random.below(256);
      return packet;
    });
    test.now += 0.1;
    pass(Direction.Outbound, ...packets);
    if (flow % PAUSE < BURST) {
      talk("PA", seq, ack, `PA seq ${ack} ack ${seq + 1} "b"`);
      seq++;
      ack++;
    }
  }
}

function resident(): number {
  (globalThis as { gc?: () => void }).gc?.();
  return Deno.memoryUsage().rss / MEBIBYTE;
}

flood(FLOWS);
const warm = resident();
flood(FLOWS);
const result: Flood = {
  resident: [warm, resident()],
  known: [
    { name: "firewall", size: firewall.size, capacity: CAPACITY },
    { name: "napt44", size: nat.flows, capacity: 3 * CAPACITY },
  ],
  sent,
  answered,
  leaked,
  balanced: test.balanced,
};
console.log(JSON.stringify(result));
