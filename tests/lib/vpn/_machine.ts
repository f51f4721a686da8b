/** A machine with the sealed protocol, driven by hand: packets and datagrams go in and come out as bytes. */

import { Direction, ENDPOINT_LENGTH, PacketPool, type StageStats } from "@warren/tunnel/core";
import { type Cryptography, Sealed, type SealedOptions } from "@warren/tunnel/vpn";
import { TestPipeline } from "../../kit/pipeline.ts";
import { encodePacket } from "../../kit/packet_text.ts";

/** 32 bytes that stand for random ones. */
export const KEY = Uint8Array.from({ length: 32 }, (_, i) => i * 7 + 1);

/** A wall clock at the start of all tests: 2026. */
export const START = 1.78e12;

/** A datagram on the wire; an address of 0 is that of the only other machine. */
export interface Datagram {
  readonly bytes: Uint8Array;
  readonly src: number;
  readonly dst: number;
}

/** Returns a UDP packet between two addresses whose payload is a number. */
export function packet(src: string, dst: string, number = 0): Uint8Array {
  return encodePacket(`udp ${src}:5000 > ${dst}:53 "${number}"`);
}

/** Returns the outer address that stands for a number. */
export function endpoint(address: number): Uint8Array {
  return new Uint8Array(ENDPOINT_LENGTH).fill(address);
}

/** One machine. Its clocks are its own, and it has an outer address, which datagrams show as their source. */
export class Machine {
  readonly sealed: Sealed;
  readonly pipeline: TestPipeline;
  /** Wall clock (milliseconds since 1970). */
  wall: number;
  /** Outer address. */
  address: number;
  /** Peer numbers in the last packet that arrived, and the mark of the last datagram that left. */
  readonly last = { from: -1, to: -1, mark: 0 };
  readonly #sources: number[] = [];
  readonly #targets: number[] = [];

  /** A machine that has just started. */
  constructor(
    cryptography: Cryptography,
    options: SealedOptions,
    { address = 1, now = 0, wall = START, pool = new PacketPool({ small: 512, large: 0 }) } = {},
  ) {
    this.sealed = new Sealed(cryptography, () => this.wall, options);
    this.wall = wall;
    this.address = address;
    this.pipeline = new TestPipeline(
      pool,
      {
        name: "top",
        inbound: (batch) => {
          for (const { from, to } of batch) Object.assign(this.last, { from, to });
        },
      },
      this.sealed,
      {
        name: "wire",
        outbound: (batch) => {
          for (const packet of batch) {
            this.#targets.push(packet.hasEndpoint ? packet.endpoint[0]! : 0);
            this.last.mark = packet.mark;
          }
        },
        inbound: (batch) => {
          for (const packet of batch) {
            const source = this.#sources.shift()!;
            packet.to = 77;
            if (source !== 0) packet.sendTo(endpoint(source));
          }
        },
      },
    );
    this.pipeline.now = now;
  }

  /** Passes time on both clocks. */
  advance(milliseconds: number): void {
    this.pipeline.now += milliseconds;
    this.wall += milliseconds;
  }

  /** Sends packets, and returns all datagrams that leave. */
  send(...packets: Uint8Array[]): Datagram[] {
    for (const bytes of packets) this.pipeline.send(Direction.Outbound, bytes);
    return this.pass().datagrams;
  }

  /** Receives datagrams, and returns the packets that arrive, and datagrams that leave. */
  receive(...datagrams: Pick<Datagram, "bytes" | "src">[]): { packets: Uint8Array[]; datagrams: Datagram[] } {
    for (const { bytes, src } of datagrams) {
      this.#sources.push(src);
      this.pipeline.send(Direction.Inbound, bytes);
    }
    return this.pass();
  }

  /** Breathes. */
  pass(): { packets: Uint8Array[]; datagrams: Datagram[] } {
    this.pipeline.settle();
    const { far, device } = this.pipeline.receive();
    const datagrams = far.map((bytes) => ({ bytes, src: this.address, dst: this.#targets.shift()! }));
    return { packets: device, datagrams };
  }

  /** Statistics of the protocol. */
  get stats(): StageStats {
    return this.pipeline.pipeline.stageStats.find(({ name }) => name === "sealed")!;
  }
}

/** Returns the number in a packet of {@linkcode packet}. */
export function numberIn(bytes: Uint8Array): number {
  const header = bytes[0]! >> 4 === 4 ? 28 : 48;
  return Number(new TextDecoder().decode(bytes.subarray(header)));
}
