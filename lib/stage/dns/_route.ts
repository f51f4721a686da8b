/** Addresses and ports of a query's packet, kept while its bytes are replaced by the answer. */

import type { Packet } from "../../core/mod.ts";
import type { Ip } from "../../wire/ip.ts";
import { Ipv4 } from "../../wire/ipv4.ts";
import { Ipv6 } from "../../wire/ipv6.ts";
import { Udp } from "../../wire/udp.ts";

/** Source and destination of the packet that was read last. */
export class Route {
  /** Ports for the transport header. */
  readonly ports = { srcPort: 0, dstPort: 0 };
  readonly #ipv4: { src: number; dst: number; protocol: number };
  readonly #ipv6: { src: Uint8Array; dst: Uint8Array; nextHeader: number };
  #version = 4;

  /** @param protocol UDP or TCP. */
  constructor(protocol: number) {
    this.#ipv4 = { src: 0, dst: 0, protocol };
    this.#ipv6 = { src: new Uint8Array(16), dst: new Uint8Array(16), nextHeader: protocol };
  }

  read({ ip, srcPort, dstPort }: { ip: Ip; srcPort: number; dstPort: number }): void {
    this.#version = ip.version;
    this.ports.srcPort = srcPort;
    this.ports.dstPort = dstPort;
    if (ip.version === 4) {
      this.#ipv4.src = ip.src;
      this.#ipv4.dst = ip.dst;
    } else {
      this.#ipv6.src.set(ip.src);
      this.#ipv6.dst.set(ip.dst);
    }
  }

  swap(): void {
    const { srcPort, dstPort } = this.ports;
    this.ports.srcPort = dstPort;
    this.ports.dstPort = srcPort;
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
  encodeUdp(packet: Packet): void {
    Udp.encode(packet, this.ports);
    this.encodeIp(packet);
  }

  /** Prepends an IP header. */
  encodeIp(packet: Packet): void {
    if (this.#version === 4) Ipv4.encode(packet, this.#ipv4);
    else Ipv6.encode(packet, this.#ipv6);
  }
}
