/** Traffic for system tests: scripts at work, ping, iperf3, and what passed a device, judged by tshark. */

import { fileURLToPath } from "node:url";
import { command, type CommandResult, link, type Namespace, openNamespace } from "./system.ts";

const SCRIPTS = new URL("../../scripts/", import.meta.url);

// Specification
// https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-03.html, sections 4 and 5
const PCAP_MAGIC = 0xa1b2c3d4;
const PCAP_HEADER = { linkType: 20, size: 24 } as const;
const PCAP_RECORD = { captured: 8, original: 12, size: 16 } as const;
/** A packet that starts with its IP header. */
const LINKTYPE_RAW = 101;

// Implementation
/** Everything here ends by then (milliseconds). */
const LIMIT = 30_000;
/** What tcpdump may fall behind by (KiB). */
const CAPTURE_BUFFER = 65_536;
const PATTERN_BYTES = 8;
let patterns = 0;

/** A program that goes on, and what it says. Disposing of it kills it. */
export class Running implements AsyncDisposable {
  /** Its number. */
  readonly pid: number;
  readonly #child: Deno.ChildProcess;
  readonly #listening: Promise<unknown>;
  readonly #ended: Promise<Deno.CommandStatus>;
  #heard = "";
  #news = Promise.withResolvers<void>();
  #isOver = false;

  /** A child whose standard error is piped, or its standard output, or both. */
  constructor(child: Deno.ChildProcess, ...outputs: ReadableStream<Uint8Array>[]) {
    this.pid = child.pid;
    this.#child = child;
    this.#ended = child.status;
    this.#listening = Promise.all(outputs.map((output) => this.#listen(output))).then(() => {
      this.#isOver = true;
      this.#news.resolve();
    });
  }

  /** All that it has said. */
  get heard(): string {
    return this.#heard;
  }

  /** Whether it says nothing more. */
  get hasEnded(): boolean {
    return this.#isOver;
  }

  /**
   * Waits until it has said this.
   *
   * @throws {Error} when it ends before, or after 30 s, with what it said.
   */
  async said(pattern: RegExp): Promise<void> {
    using alarm = new Alarm(`"${pattern.source}" was not said: ${this.#heard}`);
    while (!pattern.test(this.#heard)) {
      if (this.#isOver) throw new Error(`It ended without "${pattern.source}": ${this.#heard}`);
      await Promise.race([this.#news.promise, alarm.rings]);
    }
  }

  /** Sends a signal. */
  signal(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** Sends a signal and waits for its end. */
  async stop(signal: Deno.Signal = "SIGINT"): Promise<{ code: number; heard: string }> {
    this.#child.kill(signal);
    return await this.ended();
  }

  /** Waits for its end. */
  async ended(): Promise<{ code: number; heard: string }> {
    using alarm = new Alarm(`It did not end: ${this.#heard}`);
    const [{ code }] = await Promise.race([Promise.all([this.#ended, this.#listening]), alarm.rings]);
    return { code, heard: this.#heard };
  }

  /** Kills it, if it lives, and waits for its end. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.#ended;
    await this.#listening;
  }

  async #listen(output: ReadableStream<Uint8Array>): Promise<void> {
    for await (const text of output.pipeThrough(new TextDecoderStream())) {
      this.#heard += text;
      this.#news.resolve();
      this.#news = Promise.withResolvers();
    }
  }
}

/** A promise that rejects when it took too long. */
class Alarm implements Disposable {
  readonly rings: Promise<never>;
  readonly #timer: ReturnType<typeof setTimeout>;

  constructor(message: string) {
    const { promise, reject } = Promise.withResolvers<never>();
    promise.catch(() => {});
    this.rings = promise;
    this.#timer = setTimeout(() => reject(new Error(message)), LIMIT);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}

/** The command line that a script's first line asks for, behind `deno run`: its permissions, and where it is. */
export async function scriptCommand(script: string): Promise<string[]> {
  const url = new URL(script, SCRIPTS);
  const [first] = (await Deno.readTextFile(url)).split("\n");
  const flags = /^#!\/usr\/bin\/env -S deno run (.*)$/.exec(first!)?.[1]?.split(" ") ?? [];
  return ["run", "--quiet", "--no-prompt", ...flags, fileURLToPath(url)];
}

/** Starts one of `scripts/` in a namespace; returns when its device is up and has its addresses. */
export async function startScript(
  namespace: Namespace,
  script: string,
  ...flags: string[]
): Promise<Running> {
  const child = namespace.spawn(Deno.execPath(), [...await scriptCommand(script), ...flags], {
    stdout: "null",
  });
  const running = new Running(child, child.stderr);
  try {
    await running.said(/ is open: /);
    return running;
  } catch (error) {
    await running[Symbol.asyncDispose]();
    throw error;
  }
}

/** Starts a module in a namespace; returns when it has said `ready`. */
export async function startModule(
  namespace: Namespace,
  module: URL,
  args: string[],
  permissions: string[],
): Promise<Running> {
  const words = ["run", "--quiet", "--no-prompt", ...permissions, fileURLToPath(module), ...args];
  const child = namespace.spawn(Deno.execPath(), words);
  const running = new Running(child, child.stdout, child.stderr);
  try {
    await running.said(/^ready$/m);
    return running;
  } catch (error) {
    await running[Symbol.asyncDispose]();
    throw error;
  }
}

/** What ping counted. */
export interface Pings {
  /** Requests. */
  readonly sent: number;
  /** The numbers of those that were answered, in the order of their answers. */
  readonly answered: number[];
  /** Everything else that it said was wrong: duplicates, errors, answers with other bytes. */
  readonly odd: string[];
  /** Round-trip times (milliseconds), in their order. */
  readonly times: number[];
}

/** Pings from a namespace, with ping's own flags; loss is no error. */
export async function ping(namespace: Namespace, ...args: string[]): Promise<Pings> {
  const { stdout, stderr } = await bounded(namespace, "ping", ["-n", ...args], false);
  const pings = parsePings(stdout);
  if (pings === undefined) throw new Error(`ping ${args.join(" ")}: ${stdout}${stderr}`);
  return pings;
}

/** What ping(8) wrote with `-n`; `undefined`: it did not come to its end. */
export function parsePings(text: string): Pings | undefined {
  const counts = /^(\d+) packets transmitted, /m.exec(text);
  if (counts === null) return undefined;
  const odd = text.split("\n").filter((line) =>
    /DUP!|wrong data|From .* icmp_seq|truncated|corrupted|duplicates|errors/.test(line)
  );
  const times = Array.from(text.matchAll(/time=([\d.]+) ms/g), ([, time]) => Number(time));
  const answered = Array.from(text.matchAll(/icmp_seq=(\d+) ttl=/g), ([, number]) => Number(number));
  return { sent: Number(counts[1]), answered, odd, times };
}

/** Pings ten times a second until there is an answer, at most 10 s; returns after how many requests it came. */
export async function firstAnswer(namespace: Namespace, destination: string): Promise<number> {
  const { sent, answered } = await ping(namespace, "-c", "1", "-i", "0.1", "-w", "10", destination);
  if (answered.length === 0) throw new Error(`No answer from ${destination} to ${sent} pings`);
  return sent;
}

/** What iperf3 says with `-J`, as far as it is used here. */
export interface IperfReport {
  /** At the end. */
  readonly end: {
    /** TCP: what the sender counted. */
    readonly sum_sent: { readonly bytes: number; readonly retransmits?: number };
    /** TCP: what the receiver counted. */
    readonly sum_received: { readonly bytes: number; readonly bits_per_second: number };
    /** UDP: what both counted. */
    readonly sum?: {
      readonly packets: number;
      readonly lost_packets: number;
      readonly lost_percent: number;
    };
    /** UDP: each stream's. */
    readonly streams: readonly { readonly udp?: { readonly out_of_order: number } }[];
  };
}

/** Runs iperf3 from one namespace to a server that it starts in another one. */
export async function iperf(
  from: Namespace,
  to: Namespace,
  address: string,
  ...args: string[]
): Promise<IperfReport> {
  const child = to.spawn("iperf3", ["-s", "-1", "--forceflush"]);
  await using server = new Running(child, child.stdout, child.stderr);
  await server.said(/Server listening/);
  const { stdout } = await bounded(from, "iperf3", [
    "-c",
    address,
    "-J",
    "--connect-timeout",
    "5000",
    ...args,
  ]);
  await server.ended();
  return JSON.parse(stdout);
}

async function bounded(
  namespace: Namespace,
  program: string,
  args: string[],
  check = true,
): Promise<CommandResult> {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), LIMIT);
  try {
    return await namespace.command(program, args, { signal: controller.signal, check });
  } finally {
    clearTimeout(timer);
  }
}

/** The kernel's own counters of a device: `tx` is what it sent into it. */
export interface KernelCounters {
  /** What came out of the device. */
  readonly rx: { packets: number; bytes: number; dropped: number; errors: number };
  /** What went into the device. */
  readonly tx: { packets: number; bytes: number; dropped: number; errors: number };
}

/** The kernel's counters of a device, as `ip -s link` shows them. */
export async function kernelCounters(namespace: Namespace, device: string): Promise<KernelCounters> {
  const [link] = await namespace.ip<{ stats64: KernelCounters }>("-s", "link", "show", "dev", device);
  return link!.stats64;
}

/** One of the kernel's counters of a protocol, such as `UdpRcvbufErrors`, as nstat(8) names them. */
export async function protocolCounter(namespace: Namespace, name: string): Promise<number> {
  const { stdout } = await namespace.command("cat", ["/proc/net/snmp"]);
  const protocol = /^[A-Z][a-z]+/.exec(name)![0];
  const [names, values] = stdout.split("\n").filter((line) => line.startsWith(`${protocol}:`))
    .map((line) => line.split(" "));
  return Number(values![names!.indexOf(name.slice(protocol.length))]);
}

/** What passes a device, by `tcpdump -w`. Disposing of it ends that. */
export class Capture implements AsyncDisposable {
  /** Which device. */
  readonly device: string;
  /** Every packet so far, in its order: from the IP header on. */
  readonly packets: Uint8Array[] = [];

  readonly #tcpdump: Deno.ChildProcess;
  readonly #running: Running;
  readonly #reading: Promise<void>;
  readonly #chunks: Uint8Array<ArrayBuffer>[] = [];
  #news = Promise.withResolvers<void>();
  #isOver = false;

  private constructor(device: string, tcpdump: Deno.ChildProcess) {
    this.device = device;
    this.#tcpdump = tcpdump;
    this.#running = new Running(tcpdump, tcpdump.stderr);
    this.#reading = this.#read(tcpdump.stdout);
  }

  /** Starts to capture what the filter (pcap-filter(7)) lets pass. */
  static async open(namespace: Namespace, device: string, filter: string, longest = 1500): Promise<Capture> {
    // The buffer has so many packets of the longest length: a longer one than needed makes it drop sooner.
    const buffer = ["-s", String(longest), "-B", String(CAPTURE_BUFFER)];
    const flags = ["-i", device, "-n", "-U", "--immediate-mode", ...buffer, "-w", "-"];
    const capture = new Capture(device, namespace.spawn("tcpdump", [...flags, filter]));
    try {
      await capture.#running.said(/listening on/);
      return capture;
    } catch (error) {
      await capture[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The whole capture, as a file of tcpdump's. */
  get file(): Blob {
    return new Blob(this.#chunks);
  }

  /** Waits for the first packet from the `first`th on of which this is true; returns which one it is. */
  async until(first: number, condition: (packet: Uint8Array) => boolean): Promise<number> {
    using alarm = new Alarm(`It did not pass ${this.device}: ${this.#running.heard}`);
    for (let i = first;; i++) {
      while (i >= this.packets.length) {
        if (this.#isOver) throw new Error(`tcpdump ended: ${this.#running.heard}`);
        await Promise.race([this.#news.promise, alarm.rings]);
      }
      if (condition(this.packets[i]!)) return i;
    }
  }

  /**
   * Ends it.
   *
   * @throws {Error} when tcpdump did not see every packet.
   */
  async close(): Promise<void> {
    this.#tcpdump.kill("SIGINT");
    await this.#reading;
    const { heard } = await this.#running.ended();
    if (!/^0 packets dropped by kernel$/m.test(heard)) throw new Error(`tcpdump on ${this.device}: ${heard}`);
  }

  /** {@linkcode Capture.close}, whatever tcpdump says. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running[Symbol.asyncDispose]();
    await this.#reading;
  }

  async #read(output: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    let rest = new Uint8Array();
    let isHeader = true;
    for await (const chunk of output) {
      this.#chunks.push(chunk);
      const bytes = new Uint8Array(rest.length + chunk.length);
      bytes.set(rest);
      bytes.set(chunk, rest.length);
      const view = new DataView(bytes.buffer);
      let offset = 0;
      if (isHeader && bytes.length >= PCAP_HEADER.size) {
        const linkType = view.getUint32(PCAP_HEADER.linkType, true);
        if (view.getUint32(0, true) !== PCAP_MAGIC || linkType !== LINKTYPE_RAW) {
          throw new Error(`Cannot read the capture of ${this.device}: its link type is ${linkType}`);
        }
        isHeader = false;
        offset = PCAP_HEADER.size;
      }
      while (!isHeader && offset + PCAP_RECORD.size <= bytes.length) {
        const end = offset + PCAP_RECORD.size + view.getUint32(offset + PCAP_RECORD.captured, true);
        if (end > bytes.length) break;
        this.packets.push(bytes.subarray(offset + PCAP_RECORD.size, end));
        offset = end;
      }
      rest = bytes.slice(offset);
      this.#news.resolve();
      this.#news = Promise.withResolvers();
    }
    this.#isOver = true;
    this.#news.resolve();
  }
}

/**
 * Ends captures when they have seen all that was sent before: one ping's answer passes all of them, behind
 * everything else.
 */
export async function endCaptures(
  from: Namespace,
  destination: string,
  captures: readonly Capture[],
): Promise<void> {
  const firsts = captures.map(({ packets }) => packets.length);
  const pattern = new Uint8Array(PATTERN_BYTES).fill(0xa5);
  pattern[0] = ++patterns;
  const { answered } = await ping(from, "-c", "1", "-W", "5", "-p", pattern.toHex(), destination);
  if (answered.length === 0) {
    throw new Error(`No answer from ${destination} to the ping that ends the capture`);
  }
  await Promise.all(
    captures.map((capture, i) => capture.until(firsts[i]!, (packet) => isAnswer(packet, pattern))),
  );
  await Promise.all(captures.map((capture) => capture.close()));
}

/** Whether it is an echo reply that ends with repetitions of the pattern. */
function isAnswer(packet: Uint8Array, pattern: Uint8Array): boolean {
  const isReply = packet[0]! >> 4 === 4
    ? packet[9] === 1 && packet[20] === 0
    : packet[6] === 58 && packet[40] === 129;
  return isReply && packet.toHex().includes(pattern.toHex());
}

/** What tshark says of a capture. */
export interface Judgement {
  /** How many packets it found. */
  readonly packets: number;
  /** A line for each that is malformed or has a bad checksum. */
  readonly faults: string[];
}

// Specification: tshark's fields
const FAULTS = {
  "ip.checksum.status": "bad ip checksum",
  "tcp.checksum.status": "bad tcp checksum",
  "udp.checksum.status": "bad udp checksum",
  "icmp.checksum.status": "bad icmp checksum",
  "icmpv6.checksum.status": "bad icmpv6 checksum",
  "_ws.malformed": "malformed",
} as const;
/** Linux finishes a TCP sum of 0 as 0xffff, too (skb_checksum_help), which is the same number (RFC 1624). */
const SAME_SUM = "tcp.checksum.ffff";
/** epan/tvbuff.h, PROTO_CHECKSUM_E_BAD. */
const BAD = "0";

/** Has tshark look at every packet of a capture by itself, with all checksums. */
export async function judge(capture: Blob): Promise<Judgement> {
  const path = await Deno.makeTempFile({ suffix: ".pcap" });
  try {
    await Deno.writeFile(path, capture.stream());
    const preferences = [
      ...["ip", "tcp", "udp"].map((protocol) => `${protocol}.check_checksum:TRUE`),
      // Streams put together again are "malformed" when a segment was sent twice.
      "tcp.desegment_tcp_streams:FALSE",
    ];
    const fields = ["frame.number", "_ws.col.Info", SAME_SUM, ...Object.keys(FAULTS)];
    const { stdout } = await command("tshark", [
      ...["-r", path, "-n", "-T", "fields"],
      ...preferences.flatMap((preference) => ["-o", preference]),
      ...fields.flatMap((field) => ["-e", field]),
    ]);
    const lines = stdout.split("\n").filter((line) => line !== "");
    return { packets: lines.length, faults: lines.flatMap(findFault) };
  } finally {
    await Deno.remove(path);
  }
}

/** What is wrong with a packet by a line of tshark's, or nothing. */
function findFault(line: string): string[] {
  const [number, info, sameSum, ...values] = line.split("\t");
  const found = Object.entries(FAULTS).filter(([field], i) => {
    const said = values[i]!.split(",");
    if (field === "_ws.malformed") return values[i] !== "";
    return said.includes(BAD) && !(field === "tcp.checksum.status" && sameSum !== "");
  });
  return found.length === 0 ? [] : [`${number}: ${found.map(([, fault]) => fault).join(", ")}: ${info}`];
}

/** A file of tcpdump's with these packets, for {@linkcode judge}. */
export function captureFile(packets: readonly Uint8Array[]): Blob {
  const header = new Uint8Array(PCAP_HEADER.size);
  const view = new DataView(header.buffer);
  view.setUint32(0, PCAP_MAGIC, true);
  view.setUint16(4, 2, true);
  view.setUint16(6, 4, true);
  view.setUint32(16, 0xffff, true);
  view.setUint32(PCAP_HEADER.linkType, LINKTYPE_RAW, true);
  const records = packets.flatMap((packet) => {
    const record = new Uint8Array(PCAP_RECORD.size);
    const fields = new DataView(record.buffer);
    fields.setUint32(PCAP_RECORD.captured, packet.length, true);
    fields.setUint32(PCAP_RECORD.original, packet.length, true);
    return [record, packet.slice()];
  });
  return new Blob([header, ...records]);
}

/** Addresses of the two namespaces of a {@linkcode Crossing}. */
export const CROSSING = {
  left: { ipv4: "10.1.0.1", ipv6: "fd01::1" },
  right: { ipv4: "10.2.0.1", ipv6: "fd02::1" },
} as const;

/** The devices between which a {@linkcode Crossing} sends everything. */
export const DEVICES = ["left", "right"] as const;

/**
 * Two namespaces, and a third one between them, which sends what comes from one out through a device of
 * Warren's, and what comes out of the other device to the other namespace:
 *
 *     left ──veth── middle ─► device "left" ─► the script ─► device "right" ─► middle ──veth── right
 */
export class Crossing implements AsyncDisposable {
  /** 10.1.0.1 and fd01::1. */
  readonly left: Namespace;
  /** Where the script runs. */
  readonly middle: Namespace;
  /** 10.2.0.1 and fd02::1. */
  readonly right: Namespace;

  private constructor(left: Namespace, middle: Namespace, right: Namespace) {
    this.left = left;
    this.middle = middle;
    this.right = right;
  }

  /** Makes the namespaces and joins them; the devices are still to come. */
  static async open(): Promise<Crossing> {
    await using undo = new AsyncDisposableStack();
    const left = undo.use(await openNamespace());
    const middle = undo.use(await openNamespace());
    const right = undo.use(await openNamespace());
    const settings = [
      ...["all", "default"].map((place) => `net.ipv4.conf.${place}.rp_filter=0`),
      "net.ipv4.ip_forward=1",
      "net.ipv6.conf.all.forwarding=1",
    ];
    await middle.command("sysctl", ["-qw", ...settings]);
    for (const [i, namespace] of [left, right].entries()) {
      const [four, six] = [`10.${i + 1}.0`, `fd0${i + 1}:`];
      const veth = `v${i}`;
      await link(
        { namespace, name: "veth", addresses: [`${four}.1/24`, `${six}:1/64`] },
        { namespace: middle, name: veth, addresses: [`${four}.2/24`, `${six}:2/64`] },
      );
      // No default route: what programs send elsewhere (look-ups of names) stays out of the script.
      const [far, via] = [`10.${2 - i}.0.0/24`, `${four}.2`];
      await namespace.command("ip", ["route", "add", far, "via", via]);
      await namespace.command("ip", ["-6", "route", "add", `fd0${2 - i}::/64`, "via", `${six}:2`]);
      // Packets that wait for the neighbour's address would be sent late.
      await namespace.command("ping", ["-c", "1", "-W", "5", via]);
      for (const family of ["-4", "-6"]) {
        const rule = ["rule", "add", "iif", veth, "lookup", String(101 + i)];
        await middle.command("ip", [family, ...rule]);
      }
    }
    undo.move();
    return new Crossing(left, middle, right);
  }

  /** Sends everything through the devices, which are there now and go with their script. */
  async route(families: readonly string[] = ["-4", "-6"]): Promise<void> {
    for (const [i, device] of DEVICES.entries()) {
      for (const family of families) {
        const route = ["route", "add", "default", "dev", device, "table", String(101 + i)];
        await this.middle.command("ip", [family, ...route]);
      }
    }
  }

  /** Ends everything and removes the namespaces. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.left[Symbol.asyncDispose]();
    await this.right[Symbol.asyncDispose]();
    await this.middle[Symbol.asyncDispose]();
  }
}
