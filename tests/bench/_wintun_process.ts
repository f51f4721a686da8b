/**
 * The process in which `wintun` measures: deno.exe under Wine, with the stand-ins and `--v8-flags=--expose-gc`. It
 * prints {@linkcode WintunFigures} as JSON.
 *
 *     flood of the stand-in ─► ring ─► c, bare, device, or tunnel ─► dropped
 *     made there ─► c, bare, device, or tunnel ─► ring ─► taken by the stand-in within SendPacket
 *
 * All of it is in this process and on this thread. `c` and `bare` make the library's calls and copy, `c` within
 * the stand-in, `bare` from TypeScript; `device` is the driver alone, `tunnel` all of Warren.
 */

import {
  Direction,
  type EndHost,
  type PacketBatch as Batch,
  type PacketHandler,
  type TunnelEnd,
  Verdict,
} from "../../lib/core/mod.ts";
import { PacketBatch, PacketPool } from "../../lib/core/mod.ts";
import { checkDeviceOptions } from "../../driver/options.ts";
import { closeAdapter, openAdapter } from "../../driver/windows/adapter.ts";
import { openWintunDevice, type WintunDevice } from "../../driver/windows/device.ts";
import { addressOf } from "../../driver/native_memory.ts";
import { kernel32 } from "../../driver/windows/kernel32.ts";
import { wintun } from "../../driver/windows/wintun.ts";
import { openTunnel } from "../../runtime/mod.ts";
import { wide } from "../system/windows/stand_in.ts";

// Implementation
/** What the stand-in's flood is made of (bytes). */
const LENGTH = 1400;
const CAPACITY = 0x100_0000;
const SLOTS = 64;
const SLOT = 2048;
/** The first byte of an IPv4 packet. */
const IPV4 = 0x45;
const WARM_UP_PACKETS = 100_000;

/** The names of what is measured. */
export type Way = "c" | "bare" | "device" | "tunnel";

/** What the process prints. */
export interface WintunFigures {
  /** Nanoseconds a packet, one figure a round. */
  readonly read: Record<Way, number[]>;
  /** The same, to the system. */
  readonly write: Record<Way, number[]>;
  /** How much the heap grew for each packet that came and went back (bytes). */
  readonly heapBytesPerPacket: number;
}

const { symbols: { StandInFlood, StandInSink, StandInReceiveAll, StandInSendAll } } = Deno.dlopen(
  Deno.env.get("WARREN_WINTUN")!,
  {
    // void StandInFlood(const WCHAR *name, LONG64 packets);
    StandInFlood: { parameters: ["buffer", "i64"], result: "void" },
    // void StandInSink(const WCHAR *name);
    StandInSink: { parameters: ["buffer"], result: "void" },
    // LONG64 StandInReceiveAll(const WCHAR *name);
    StandInReceiveAll: { parameters: ["buffer"], result: "i64" },
    // void StandInSendAll(const WCHAR *name, LONG64 packets);
    StandInSendAll: { parameters: ["buffer", "i64"], result: "void" },
  },
);

/** Moves so many packets in one direction. */
type Move = (packets: number) => void | Promise<void>;

/** One that is measured. */
interface Contender extends AsyncDisposable {
  readonly read: Move;
  readonly write: Move;
}

/** The library's calls, and nothing else. */
async function openBare(name: string, language: "c" | "bare"): Promise<Contender> {
  const adapter = await openAdapter(name);
  const session = wintun().WintunStartSession(adapter.handle, CAPACITY)!;
  const named = wide(name);
  StandInSink(named);
  const { WintunReceivePacket, WintunReleaseReceivePacket, WintunAllocateSendPacket, WintunSendPacket } =
    wintun();
  const { RtlMoveMemory } = kernel32();
  const memory = new Uint8Array(SLOTS * SLOT).fill(IPV4);
  const slots = Array.from({ length: SLOTS }, (_, slot) => BigInt(addressOf(memory) + slot * SLOT));
  const size = new Uint32Array(1);
  const length = BigInt(LENGTH);
  const expect = (count: number, packets: number) => {
    if (count !== packets) throw new Error(`Cannot measure: ${count} packets of ${packets} came`);
  };
  const readByC: Move = (packets) => {
    StandInFlood(named, BigInt(packets));
    expect(Number(StandInReceiveAll(named)), packets);
  };
  const writeByC: Move = (packets) => StandInSendAll(named, BigInt(packets));
  const read: Move = (packets) => {
    StandInFlood(named, BigInt(packets));
    let count = 0;
    for (;; count++) {
      const source = WintunReceivePacket(session, size);
      if (source === 0n) break;
      RtlMoveMemory(slots[count % SLOTS]!, source, length);
      WintunReleaseReceivePacket(session, source);
    }
    expect(count, packets);
  };
  const write: Move = (packets) => {
    for (let count = 0; count < packets; count++) {
      const target = WintunAllocateSendPacket(session, LENGTH);
      if (target === 0n) throw new Error("Cannot measure: the ring is full");
      RtlMoveMemory(target, slots[count % SLOTS]!, length);
      WintunSendPacket(session, target);
    }
  };
  return {
    ...(language === "c" ? { read: readByC, write: writeByC } : { read, write }),
    async [Symbol.asyncDispose]() {
      // The addresses are numbers to V8.
      if (memory.length === 0) return;
      wintun().WintunEndSession(session);
      await closeAdapter(adapter);
    },
  };
}

function openAlone(name: string): Promise<WintunDevice> {
  return openWintunDevice(checkDeviceOptions({ name, windows: { ringCapacity: CAPACITY } }));
}

/** The driver, without tunnel and loop. */
async function openDevice(name: string): Promise<Contender> {
  const device = await openAlone(name);
  const named = wide(name);
  StandInSink(named);
  const pool = new PacketPool();
  pool.bytes.fill(IPV4);
  const fail = (what: string) => {
    throw new Error(`Cannot measure: ${what}`);
  };
  device.attach({
    pool,
    now: () => 0,
    wake() {},
    finish: (packet, reason) => reason === undefined ? packet.pool.give(packet) : fail(reason),
    refuse: (_bytes, reason) => fail(reason),
    watch: () => () => {},
  });
  const batch = new PacketBatch();
  return {
    read(packets) {
      StandInFlood(named, BigInt(packets));
      for (let left = packets; left > 0;) {
        const count = device.read(batch);
        for (let i = 0; i < count; i++) pool.give(batch.packets[i]!);
        batch.clear();
        left -= count;
      }
    },
    write(packets) {
      for (let left = packets; left > 0;) {
        while (!batch.full && left-- > 0) batch.push(pool.take(LENGTH)!);
        while (batch.length > 0) device.write(batch);
      }
    },
    async [Symbol.asyncDispose]() {
      device.close();
      await device.closed;
    },
  };
}

/** A far end with so many packets, made as they are asked for. */
class Source implements TunnelEnd {
  readonly name = "source";
  readonly waits = [{ waitable: undefined }];
  readonly queued = 0;
  readonly failure = undefined;
  #host: EndHost | undefined;
  #left = 0;
  #finished = () => {};

  attach(host: EndHost): void {
    this.#host = host;
    host.pool.bytes.fill(IPV4);
  }

  read(batch: Batch): number {
    const first = batch.length;
    const { pool } = this.#host!;
    while (this.#left > 0 && !batch.full) {
      const packet = pool.take(LENGTH);
      if (packet === undefined) break;
      batch.push(packet);
      // Whoever awaits it is called when this breath has written them.
      if (--this.#left === 0) this.#finished();
    }
    return batch.length - first;
  }

  write(): number {
    return 0;
  }

  close(): void {
  }

  [Symbol.dispose](): void {
  }

  /** Settled when so many have left, and the last ones are written. */
  bring(packets: number): Promise<void> {
    this.#left = packets;
    const finished = new Promise<void>((resolve) => this.#finished = resolve);
    this.#host!.wake();
    return finished;
  }
}

/** A tunnel that can also turn packets round. */
interface MeasuredTunnel extends Contender {
  readonly echo: Move;
}

/** All of Warren: device, loop, one handler, far end. */
async function openWhole(name: string): Promise<MeasuredTunnel> {
  const far = new Source();
  const tunnel = await openTunnel({
    device: await openAlone(name),
    far,
    signals: false,
    watchdog: 0,
  });
  const named = wide(name);
  StandInSink(named);
  let left = 0;
  let finished = () => {};
  let answer: Verdict = Verdict.Drop;
  const handler: PacketHandler = (_packet, { direction }) => {
    if (direction === Direction.Inbound) return Verdict.Pass;
    if (--left === 0) finished();
    return answer;
  };
  const running = tunnel.run(handler);
  const flood = (packets: number, verdict: Verdict) => {
    left = packets;
    answer = verdict;
    const all = new Promise<void>((resolve) => finished = resolve);
    StandInFlood(named, BigInt(packets));
    return all;
  };
  return {
    read: (packets) => flood(packets, Verdict.Drop),
    write: (packets) => far.bring(packets),
    echo: (packets) => flood(packets, Verdict.Reply),
    async [Symbol.asyncDispose]() {
      tunnel.close();
      await Promise.all([running, tunnel.closed]);
    },
  };
}

/** Nanoseconds a packet. */
async function time(move: Move, packets: number): Promise<number> {
  const start = performance.now();
  await move(packets);
  return (performance.now() - start) * 1e6 / packets;
}

function heap(): number {
  const { gc } = globalThis as { gc?: () => void };
  if (gc === undefined) throw new Error("Cannot measure the heap: start deno with --v8-flags=--expose-gc");
  gc();
  return Deno.memoryUsage().heapUsed;
}

const [rounds = 1, packets = 50_000, heapPackets = 1_000_000] = Deno.args.map(Number);
await using c = await openBare("c", "c");
await using bare = await openBare("bare", "bare");
await using device = await openDevice("device");
await using tunnel = await openWhole("tunnel");
const contenders: Record<Way, Contender> = { c, bare, device, tunnel };
const ways = Object.keys(contenders) as Way[];
const empty = (): Record<Way, number[]> => ({ c: [], bare: [], device: [], tunnel: [] });
const figures = { read: empty(), write: empty() };
for (const way of ways) {
  await contenders[way].read(WARM_UP_PACKETS);
  await contenders[way].write(WARM_UP_PACKETS);
}
for (let round = 0; round < rounds; round++) {
  for (let turn = 0; turn < ways.length; turn++) {
    const way = ways[(round + turn) % ways.length]!;
    for (const direction of ["read", "write"] as const) {
      figures[direction][way].push(await time(contenders[way][direction], packets));
    }
  }
}
console.error(`bench: the heap, by ${heapPackets} packets that come and go back`);
await tunnel.echo(WARM_UP_PACKETS);
const before = heap();
await tunnel.echo(heapPackets);
const heapBytesPerPacket = Math.max(0, heap() - before) / heapPackets;
const result: WintunFigures = { ...figures, heapBytesPerPacket };
console.log(JSON.stringify(result));
