/**
 * Packets in UDP datagrams, one each, as they are: no encryption, no handshake, no header of its own.
 *
 *     write() ──► send queue, 64 packets ──► datagrams, one by one ──► receive queue, bounded ──► read()
 *
 * Built on node:dgram, which needs no flag beyond `--allow-net`.
 */

import { Buffer } from "node:buffer";
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { lookup } from "node:dns/promises";
// Without it nothing runs node:dgram's next ticks in Deno 2.9.6, and a socket's "close" never comes.
import "node:process";
import { DriverError } from "../../driver/mod.ts";
import { finishChecksum } from "../../lib/checksum.ts";
import type { EndHost, PacketBatch, Transport, Waitable } from "../../lib/core/mod.ts";
import { fail, formatHostPort, type HostPort, parseHostPort, parseListen, requireNet } from "./_host_port.ts";
import { checkQueueLength, ReceiveQueue } from "./_receive_queue.ts";
import { SendQueue } from "./_send_queue.ts";

// Specification
/** RFC 791 section 3.1 and RFC 768: 20 and 8 bytes. */
const IPV4_OVERHEAD = 28;
/** RFC 8200 section 3 and RFC 768: 40 and 8 bytes. */
const IPV6_OVERHEAD = 48;
/** The longest payload of a UDP datagram over IPv4 (bytes). */
const MAX_DATAGRAM = 65_507;

// Implementation
/** RFC 894: what nearly every road takes (bytes). */
const ETHERNET_MTU = 1500;
/**
 * Packets taken and not sent, which is also what one turn of the event loop sends. Deno finishes about 128 socket
 * operations in a turn, and sends that use them up leave none for receiving: 100,000 sends a second let 2,000 in.
 */
const SEND_PACKETS = 64;
const SEND_BYTES = 512 * 1024;

/** Options for {@linkcode udp}: `peer`, `listen`, or both. */
export interface UdpOptions {
  /**
   * Who is at the other end: `192.0.2.1:4500`, `[2001:db8::1]:4500`, `vpn.example:4500`. A name is resolved once,
   * when the tunnel opens. @default {whoever sent the last datagram with an IP packet}
   */
  peer?: string;
  /** One's own port, or `ADDRESS:PORT`; a port alone is one of all IPv4 addresses. @default {a free one} */
  listen?: string | number;
  /** The longest packet; longer ones are dropped in both directions (bytes). @default {1500} */
  mtu?: number;
  /** How many packets wait for the loop before further ones are dropped. @default {1024} */
  queueLength?: number;
}

/** What {@linkcode udp} opens: one peer, reached by datagrams. `packet.endpoint` stays unused. */
export class UdpTransport implements Transport {
  /** Such as `udp 192.0.2.1:4500`, or `udp listening on 0.0.0.0:4500`. */
  readonly name: string;
  /** None: it calls `wake`. */
  readonly waitable: Waitable | undefined = undefined;
  /** The outer IP and UDP headers (bytes). */
  readonly overhead: number;
  /** The longest packet that passes Ethernet in one piece; the system cuts longer ones in fragments (bytes). */
  readonly pathMtu: number;
  /** Settled when the system has the socket back. */
  readonly closed: Promise<void>;
  /** Why it is gone: the socket failed. */
  failure: Error | undefined;

  readonly #socket: Socket;
  readonly #incoming: ReceiveQueue;
  readonly #mtu: number;
  /** Whether the peer is whoever sent last. */
  readonly #roams: boolean;
  #peerAddress: string;
  /** 0 while there is no peer. */
  #peerPort: number;
  #host: EndHost | undefined;
  readonly #outgoing = new SendQueue({ packets: SEND_PACKETS, bytes: SEND_BYTES });
  #sending = false;
  #full = false;
  #closed = false;
  /** Made once, not once a packet. */
  readonly #sent = (error: Error | null): void => this.#finish(error);
  readonly #refusals = new Map<string, string>();

  /** For {@linkcode udp}, with a socket that is bound. */
  constructor(name: string, socket: Socket, peer: HostPort | undefined, options: UdpOptions) {
    const { mtu = ETHERNET_MTU, queueLength } = options;
    this.name = name;
    this.overhead = socket.address().family === "IPv6" ? IPV6_OVERHEAD : IPV4_OVERHEAD;
    this.pathMtu = ETHERNET_MTU - this.overhead;
    this.#socket = socket;
    this.#mtu = mtu;
    this.#roams = peer === undefined;
    this.#peerAddress = peer?.host ?? "";
    this.#peerPort = peer?.port ?? 0;
    this.#incoming = new ReceiveQueue(queueLength, mtu);
    socket.on("message", (message, from) => this.#receive(message, from));
    socket.on("error", (error) => {
      // Windows reports a peer's ICMP error by the next receive (WSAECONNRESET): the socket goes on.
      if (Deno.build.os !== "windows") this.#fail(error);
    });
    this.closed = new Promise((resolve) => socket.once("close", resolve));
    socket.once("close", () => this.#fail(undefined));
  }

  /** Who is at the other end, such as `192.0.2.1:4500`; `undefined` while nobody is known. */
  get peer(): string | undefined {
    return this.#peerPort === 0 ? undefined : formatHostPort(this.#peerAddress, this.#peerPort);
  }

  /** Where it receives, such as `0.0.0.0:4500`; `undefined` when it is closed. */
  get local(): string | undefined {
    if (this.#closed) return undefined;
    const { address, port } = this.#socket.address();
    return formatHostPort(address, port);
  }

  /** Packets that the system has not taken yet. */
  get queued(): number {
    return this.#outgoing.length;
  }

  /** Gives it its loop. */
  attach(host: EndHost): void {
    this.#host = host;
    this.#incoming.host = host;
  }

  /** Appends what arrived. */
  read(batch: PacketBatch): number {
    return this.#closed ? 0 : this.#incoming.read(batch);
  }

  /** Takes packets while the send queue has room; what the system refuses is dropped with its reason. */
  write(batch: PacketBatch): number {
    if (this.#closed) return 0;
    const host = this.#host!;
    const { packets, length } = batch;
    let count = 0;
    for (; count < length; count++) {
      const packet = packets[count]!;
      if (packet.length > this.#mtu) host.drop(packet, "longer than the MTU");
      else if (this.#peerPort === 0) host.drop(packet, "no peer");
      else if (!this.#outgoing.full) this.#outgoing.push(packet);
      else {
        this.#full = true;
        break;
      }
    }
    batch.shift(count);
    if (!this.#sending) this.#sendFirst();
    return count;
  }

  /** Closes the socket. What was not sent or not read is gone. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.close();
    this.#incoming.clear();
    // Deno's dgram copies a datagram when it is sent: its bytes are free, though its callback is still to come.
    if (this.#sending) this.#outgoing.giveBack();
    this.#outgoing.clear(this.#host, "closed");
  }

  /** The same as {@linkcode UdpTransport.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** One at a time: Deno finishes several that must wait, for a full socket, in any order. */
  #sendFirst(): void {
    const packet = this.#outgoing.first;
    this.#sending = packet !== undefined;
    if (packet === undefined) return;
    const { bytes, offset, length } = packet;
    if (packet.checksumStart !== 0) finishChecksum(packet.data, packet.checksumStart, packet.checksumOffset);
    const datagram = Buffer.from(bytes.buffer, bytes.byteOffset + offset, length);
    this.#socket.send(datagram, this.#peerPort, this.#peerAddress, this.#sent);
  }

  #finish(error: Error | null): void {
    if (this.#closed) return;
    if (error === null) this.#outgoing.giveBack();
    else this.#host!.drop(this.#outgoing.shift(), this.#reason(error));
    this.#sendFirst();
    if (this.#full) {
      this.#full = false;
      this.#host!.wake();
    }
  }

  #reason(error: Error): string {
    const { code = "UNKNOWN" } = error as { code?: string };
    let reason = this.#refusals.get(code);
    if (reason === undefined) {
      reason = `refused by the system: ${code}`;
      this.#refusals.set(code, reason);
    }
    return reason;
  }

  #receive(message: Uint8Array, from: RemoteInfo): void {
    if (this.#closed) return;
    const known = from.port === this.#peerPort && from.address === this.#peerAddress;
    if (!known && !this.#roams) {
      this.#host?.refuse(message.length, "not from the peer");
    } else if (this.#incoming.accept(message) && !known) {
      this.#peerAddress = from.address;
      this.#peerPort = from.port;
    }
  }

  #fail(cause: Error | undefined): void {
    if (this.#closed) return;
    this.failure ??= new Error(`Cannot use ${this.name}: ${cause?.message ?? "its socket was closed"}`, {
      cause,
    });
    this.#host?.wake();
  }
}

/**
 * Joins the tunnel to another machine by UDP. With `peer`, that machine: datagrams from elsewhere are refused.
 * Without, whoever sends an IP packet to the port is the peer from then on, so that it may change its address.
 * As URLs: `udp://HOST:PORT`, `udp://HOST:PORT?listen=PORT` and, without a peer, `udp://ADDRESS:PORT?listen`.
 *
 * **Limits**: Packets travel in plain text, and whoever is on the road reads and forges them. Without `peer`,
 * anyone who can send to the port takes the tunnel over with one datagram. Put a stage that encrypts before it, or
 * keep it to networks that you trust. Link-local IPv6 peers (`fe80::…%eth0`) are not supported.
 *
 * @throws {SyntaxError} when `peer` or `listen` does not parse; {@linkcode TypeError} with neither, or when one is
 * IPv4 and one IPv6; {@linkcode RangeError} for a bound out of range. What it returns rejects with
 * `Deno.errors.NotCapable` without `--allow-net`, `NotFound` for a name that does not resolve, `AddrInUse` for a
 * port that is taken, `PermissionDenied` for one that is not allowed, and {@linkcode DriverError} otherwise.
 *
 * @example
 * ```ts
 * import { script, udp } from "@warren/tunnel";
 *
 * const far = udp({ peer: "192.0.2.1:4500", listen: 4500 });
 * export default script(import.meta, { address: "10.9.0.2/24", mtu: 1452, far }, (tunnel) => tunnel.run());
 * ```
 */
export function udp(options: UdpOptions): () => Promise<UdpTransport> {
  const { peer: peerText, listen, mtu = ETHERNET_MTU } = options;
  if (peerText === undefined && listen === undefined) {
    throw new TypeError("Cannot use udp(): it has no peer and no port: give peer, listen or both");
  }
  const peer = peerText === undefined ? undefined : parseHostPort(peerText, `peer "${peerText}"`);
  const local = listen === undefined ? undefined : parseListen(listen, `listen "${listen}"`);
  if (peer?.port === 0) fail(`peer "${peerText}"`, "its port is 0", "write the port that it listens on");
  if (!Number.isInteger(mtu) || mtu < 1 || mtu > MAX_DATAGRAM) {
    throw new RangeError(
      `Cannot use MTU ${mtu} over UDP: it is not a whole number from 1 to ${MAX_DATAGRAM}`,
    );
  }
  checkQueueLength(options.queueLength);
  // Alone, a port listens on the addresses of the peer's family.
  const anywhere = local !== undefined && !String(listen).includes(":");
  if (peer?.family !== undefined && local !== undefined && !anywhere && peer.family !== local.family) {
    throw new TypeError(`Cannot reach "${peerText}" from "${listen}": one is IPv4 and one is IPv6`);
  }
  return () => openUdp(peer, local, anywhere, options);
}

async function openUdp(
  asked: HostPort | undefined,
  local: HostPort | undefined,
  anywhere: boolean,
  options: UdpOptions,
): Promise<UdpTransport> {
  if (asked !== undefined) requireNet(formatHostPort(asked.host, asked.port));
  const peer = asked === undefined
    ? undefined
    : await resolvePeer(asked, anywhere ? undefined : local?.family);
  const family = peer?.family ?? local!.family;
  const host = local === undefined || anywhere ? family === 6 ? "::" : "0.0.0.0" : local.host;
  const port = local?.port ?? 0;
  requireNet(formatHostPort(host, port));
  const socket = createSocket({
    type: family === 6 ? "udp6" : "udp4",
    ipv6Only: peer !== undefined,
    // What node:dgram reads into. One byte more than the longest packet shows that a longer one was cut.
    recvBufferSize: (options.mtu ?? ETHERNET_MTU) + 1,
    // There is nothing to look up, so a datagram is sent at once and not in a later turn.
    lookup: (address, _family, callback) => callback(null, address, family!),
  });
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once("error", reject);
      socket.bind({ address: host, port }, resolve);
    });
    socket.removeAllListeners("error");
    const name = peer === undefined ? "udp listening on" : "udp";
    const bound = socket.address();
    const where = peer === undefined
      ? formatHostPort(bound.address, bound.port)
      : formatHostPort(peer.host, peer.port);
    return new UdpTransport(`${name} ${where}`, socket, peer, options);
  } catch (error) {
    socket.close();
    throw bindError(formatHostPort(host, port), error as Error & { code?: string; errno?: number });
  }
}

async function resolvePeer(peer: HostPort, family: 4 | 6 | undefined): Promise<HostPort> {
  if (peer.family !== undefined) return peer;
  try {
    const found = await lookup(peer.host, { family: family ?? 0 });
    return parseHostPort(formatHostPort(found.address, peer.port), `"${found.address}"`);
  } catch (cause) {
    const kind = family === undefined ? "" : `IPv${family} `;
    throw new Deno.errors.NotFound(
      `Cannot reach "${peer.host}": it has no ${kind}address: check the name, or write its address`,
      { cause },
    );
  }
}

function bindError(where: string, error: Error & { code?: string; errno?: number }): Error {
  const { code, errno = 0 } = error;
  if (code === undefined) return error;
  const message = `Cannot receive on ${where}: ${code} (${Math.abs(errno)})`;
  switch (code) {
    case "EADDRINUSE":
      return new Deno.errors.AddrInUse(`${message}: another program has this port: use another one`, {
        cause: error,
      });
    case "EACCES":
    case "EPERM":
      return new Deno.errors.PermissionDenied(`${message}: use a port above 1023`, { cause: error });
    default: {
      const remedy = code === "EADDRNOTAVAIL" ? ": use an address of this machine, or a port alone" : "";
      return new DriverError(message + remedy, {
        operation: "bind",
        code,
        errno: Math.abs(errno),
        cause: error,
      });
    }
  }
}
