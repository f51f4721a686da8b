/**
 * The demo on a real TUN device. It runs in a network namespace that nothing else is in.
 *
 *     sockets of this process ◀──▶ kernel ◀──▶ TUN device ◀──▶ scripts/icmp_echo.ts, in its own process
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import { setImmediate } from "node:timers/promises";
import { PacketPool } from "../../lib/core/mod.ts";
import { Errno, systemError } from "../../driver/linux/errno.ts";
import { errno, libc } from "../../driver/linux/libc.ts";
import { cString } from "../../driver/posix/libc.ts";
import type { Counts, Reply, Road, Version } from "./measure.ts";
import { DATAGRAM, DST_IPV4, DST_IPV6, echoRequest, PORT, replyIn, replyInIcmpv6 } from "./packets.ts";

// Specification
// sys/socket.h, netinet/in.h, fcntl.h, poll.h
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;
const O_RDWR = 2;
const O_CLOEXEC = 0o2000000;
const POLLIN = 1;
/** struct pollfd { int fd; short events; short revents; }; */
const POLLFD_SIZE = 8;
/** struct sockaddr_in { sa_family_t sin_family; in_port_t sin_port; struct in_addr sin_addr; ... }; */
const SOCKADDR_IN = { size: 16, port: 2, address: 4 };
/** struct sockaddr_in6 { ...; uint32_t sin6_flowinfo; struct in6_addr sin6_addr; uint32_t sin6_scope_id; }; */
const SOCKADDR_IN6 = { size: 28, address: 8 };
const IPV4_HEADER = 20;
const IPV6_HEADER = 40;
/** Ticks of a second in /proc/PID/stat: USER_HZ, proc(5). */
const TICKS_PER_SECOND = 100;

// Implementation
const DEVICE = "warren0";
const SCRIPT = new URL("../../scripts/icmp_echo.ts", import.meta.url);
const START_LIMIT = 10_000;
const STOP_LIMIT = 3000;
const RECEIVE_ROOM = 1500;
/** The longest wait that keeps the event loop from turning (milliseconds). */
const SLICE = 20;

/** Why there can be no TUN device in this namespace; `undefined`: there can. */
export function obstacle(): Error | undefined {
  const fd = libc().open(cString("/dev/net/tun"), O_RDWR | O_CLOEXEC, 0);
  if (fd < 0) return systemError('open "/dev/net/tun"', "open", errno());
  libc().close(fd);
}

/** A script that runs: killed when it is disposed of. */
class ScriptProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  #said = "";
  #heard: (() => void) | undefined;
  #ending = false;
  /** Settles when it says no more. */
  readonly #heardAll: Promise<void>;
  /** Rejects when it ends unasked, with what it said. */
  readonly failed: Promise<never>;

  constructor() {
    const args = ["run", "--allow-ffi", fileURLToPath(SCRIPT), "--name", DEVICE];
    const command = new Deno.Command(Deno.execPath(), {
      args,
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    });
    this.#child = command.spawn();
    this.#heardAll = this.#listen();
    this.failed = this.#end();
    this.failed.catch(() => {});
  }

  async #listen(): Promise<void> {
    for await (const text of this.#child.stderr.pipeThrough(new TextDecoderStream())) {
      this.#said += text;
      this.#heard?.();
    }
  }

  async #end(): Promise<never> {
    const [{ code }] = await Promise.all([this.#child.status, this.#heardAll]);
    if (this.#ending) return new Promise(() => {});
    throw new Error(`Cannot keep scripts/icmp_echo.ts running: it ended with ${code}: ${this.#said.trim()}`);
  }

  /** Waits until its device is open. */
  async ready(): Promise<void> {
    const { promise: heard, resolve, reject } = Promise.withResolvers<void>();
    this.#heard = () => {
      if (this.#said.includes("is open")) resolve();
    };
    const late = new Error(`Cannot wait for scripts/icmp_echo.ts: not open in 10 s: ${this.#said.trim()}`);
    const timer = setTimeout(() => reject(late), START_LIMIT);
    try {
      await Promise.race([heard, this.failed]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** What it said when it ended; empty before. */
  get summary(): string {
    return this.#said.split("\n").find((line) => line.includes("is closed")) ?? "";
  }

  /** Processor time of all its threads (milliseconds; proc(5), utime and stime). */
  cpu(): number {
    const stat = Deno.readTextFileSync(`/proc/${this.#child.pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[11]) + Number(fields[12])) * 1000 / TICKS_PER_SECOND;
  }

  /** Ends it as Ctrl-C does; where that does not help, at once. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending = true;
    this.#signal("SIGTERM");
    const timer = setTimeout(() => this.#signal("SIGKILL"), STOP_LIMIT);
    await Promise.all([this.#child.status, this.#heardAll]);
    clearTimeout(timer);
  }

  #signal(signal: Deno.Signal): void {
    try {
      this.#child.kill(signal);
    } catch (error) {
      // It is gone already.
      if (!(error instanceof TypeError || error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

/** The road through the kernel. */
export class KernelRoad implements Road, AsyncDisposable {
  /** What was opened. */
  readonly about = `icmp_echo.ts on the TUN device ${DEVICE}, in a network namespace of its own`;
  /** The script's process. */
  readonly cpuOf = "CPU of the script";
  /** When the script's process was started, as `performance.now()` has it. */
  readonly started: number = performance.now();

  readonly #libc = libc();
  readonly #script = new ScriptProcess();
  readonly #sockets = {
    4: openSocket(AF_INET, SOCK_RAW, IPPROTO_ICMP),
    6: openSocket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6),
    udp: openSocket(AF_INET, SOCK_DGRAM, 0),
  };
  readonly #addresses = { 4: sockaddrIpv4(0), 6: sockaddrIpv6(), udp: sockaddrIpv4(PORT) };
  readonly #payload = new Uint8Array(DATAGRAM);
  #closed = false;
  readonly #pollfds = pollfds([this.#sockets[4], this.#sockets[6]]);
  readonly #packet = new PacketPool({ small: 1, large: 0 }).take(RECEIVE_ROOM)!;
  readonly #room: Uint8Array<ArrayBuffer> = this.#packet.data as Uint8Array<ArrayBuffer>;

  private constructor() {}

  /** Rejects when the script ends before it is told to. */
  get failed(): Promise<never> {
    return this.#script.failed;
  }

  /** Starts the script and waits until its device is up. */
  static async open(): Promise<KernelRoad> {
    const road = new KernelRoad();
    try {
      await road.#script.ready();
      return road;
    } catch (error) {
      await road[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Sends an echo request; raw sockets take it without its IP header. */
  ping(version: Version, seq: number): void {
    const request = echoRequest(version, seq);
    this.#send(version, request.subarray(version === 4 ? IPV4_HEADER : IPV6_HEADER));
  }

  /** Sends datagrams of zeros. */
  sendDatagrams(count: number): void {
    if (this.#closed) throw new Deno.errors.BadResource("Cannot send datagrams: the road is closed");
    for (let i = 0; i < count; i++) this.#send("udp", this.#payload);
  }

  #send(by: Version | "udp", data: Uint8Array): void {
    const address = this.#addresses[by];
    const length = BigInt(data.length);
    const sent = this.#libc.sendto(
      this.#sockets[by],
      data as Uint8Array<ArrayBuffer>,
      length,
      0,
      address,
      address.length,
    );
    if (sent >= 0) return;
    const error = errno();
    // A full queue is what a flood is for; without a device there is no route, and the script says why.
    if (error === Errno.ENOBUFS || error === Errno.EAGAIN || error === Errno.ENETUNREACH) return;
    throw systemError("send a packet", "sendto", error);
  }

  /** The next reply on either raw socket. */
  async reply(milliseconds: number): Promise<Reply | undefined> {
    const end = performance.now() + milliseconds;
    for (let waits = 0;; waits++) {
      const reply = this.#receive(4) ?? this.#receive(6);
      const left = end - performance.now();
      if (reply !== undefined || left <= 0) return reply;
      // A wait without an answer is a time for signals.
      if (waits > 0) await setImmediate();
      if (this.#closed) throw new Deno.errors.BadResource("Cannot wait for a reply: the road is closed");
      this.#libc.poll(this.#pollfds, 2n, Math.ceil(Math.min(left, SLICE)));
    }
  }

  #receive(version: Version): Reply | undefined {
    const packet = this.#packet;
    for (;;) {
      const length = this.#libc.recvfrom(
        this.#sockets[version],
        this.#room,
        BigInt(RECEIVE_ROOM),
        0,
        null,
        null,
      );
      if (length < 0) return undefined;
      packet.length = length;
      const reply = version === 4
        ? replyIn(packet)
        : replyInIcmpv6(new DataView(packet.bytes.buffer, packet.offset, length), length);
      if (reply !== undefined) return reply;
    }
  }

  /** The kernel's own counters of the device. For the kernel, what the script reads is transmitted. */
  counts(): Counts {
    const line = Deno.readTextFileSync("/proc/net/dev").split("\n").find((line) =>
      line.includes(`${DEVICE}:`)
    );
    if (line === undefined) {
      throw new Deno.errors.NotFound(`Cannot read the counters of ${DEVICE}: it is gone`);
    }
    const fields = line.slice(line.indexOf(":") + 1).trim().split(/\s+/).map(Number);
    const [toHere, fromHere, queueDrops] = [fields[1]!, fields[9]!, fields[11]!];
    return { fromHere, toHere, queueDrops, scriptDrops: fromHere - toHere };
  }

  /** Of the script's process. */
  cpu(): number {
    return this.#script.cpu();
  }

  /** What the script counted itself, once it has ended. */
  get summary(): string {
    return this.#script.summary;
  }

  /** Ends the script. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#script[Symbol.asyncDispose]();
    for (const socket of Object.values(this.#sockets)) this.#libc.close(socket);
  }
}

function openSocket(domain: number, type: number, protocol: number): number {
  const fd = libc().socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
  if (fd < 0) throw systemError("open a socket", "socket", errno());
  return fd;
}

function sockaddrIpv4(port: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SOCKADDR_IN.size);
  new Uint16Array(bytes.buffer)[0] = AF_INET;
  const view = new DataView(bytes.buffer);
  view.setUint16(SOCKADDR_IN.port, port);
  view.setUint32(SOCKADDR_IN.address, DST_IPV4);
  return bytes;
}

function sockaddrIpv6(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SOCKADDR_IN6.size);
  new Uint16Array(bytes.buffer)[0] = AF_INET6;
  bytes.set(DST_IPV6, SOCKADDR_IN6.address);
  return bytes;
}

function pollfds(descriptors: readonly number[]): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(descriptors.length * POLLFD_SIZE));
  descriptors.forEach((descriptor, i) => {
    view.setInt32(i * POLLFD_SIZE, descriptor, true);
    view.setInt16(i * POLLFD_SIZE + 4, POLLIN, true);
  });
  return new Uint8Array(view.buffer);
}
