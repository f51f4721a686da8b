/** Addresses and ports of a UDP packet, kept while its bytes are replaced. */

import type { Packet } from "../../core/mod.ts";
import { Ipv4 } from "../../wire/ipv4.ts";
import { Ipv6 } from "../../wire/ipv6.ts";
import { Protocol } from "../../wire/protocol.ts";
import { Udp } from "../../wire/udp.ts";

/** Source and destination of the packet that was read last. */
export class Route {
  #version = 4;
  readonly #ipv4 = { src: 0, dst: 0, protocol: Protocol.Udp };
  readonly #ipv6 = { src: new Uint8Array(16), dst: new Uint8Array(16), nextHeader: Protocol.Udp };
  readonly #ports = { srcPort: 0, dstPort: 0 };

  /** Reads addresses and ports. */
  read({ ip, srcPort, dstPort }: Udp): void {
    this.#version = ip.version;
    this.#ports.srcPort = srcPort;
    this.#ports.dstPort = dstPort;
    if (ip.version === 4) {
      this.#ipv4.src = ip.src;
      this.#ipv4.dst = ip.dst;
    } else {
      this.#ipv6.src.set(ip.src);
      this.#ipv6.dst.set(ip.dst);
    }
  }

  /** Empties the packet and swaps source and destination, for the answer. */
  turn(packet: Packet): void {
    const { from, mark } = packet;
    packet.reset(0);
    packet.from = from;
    packet.to = from;
    packet.mark = mark;
    const { srcPort, dstPort } = this.#ports;
    this.#ports.srcPort = dstPort;
    this.#ports.dstPort = srcPort;
    const { src, dst } = this.#ipv4;
    this.#ipv4.src = dst;
    this.#ipv4.dst = src;
    for (let i = 0; i < 16; i++) {
      const byte = this.#ipv6.src[i]!;
      this.#ipv6.src[i] = this.#ipv6.dst[i]!;
      this.#ipv6.dst[i] = byte;
    }
  }

  /** Prepends UDP and IP headers. */
  wrap(packet: Packet): void {
    Udp.encode(packet, this.#ports);
    if (this.#version === 4) Ipv4.encode(packet, this.#ipv4);
    else Ipv6.encode(packet, this.#ipv6);
  }
}
