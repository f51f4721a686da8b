/** What the benches measure with: medians, clocks, the processor time of a process, the kernel's counters of devices. */

// Specification
// #define CLOCK_MONOTONIC 1   include/uapi/linux/time.h
const CLOCK_MONOTONIC = 1;
// #define CPUCLOCK_SCHED 2; a process's clock is ~pid << 3 | CPUCLOCK_SCHED   include/linux/posix-timers_types.h
const CPUCLOCK_SCHED = 2;
// struct timespec { time_t tv_sec; long tv_nsec; };   time.h, in words of 32 bits
const Timespec = { Seconds: 0, Nanoseconds: 2, Words: 4 } as const;
// "Bit 63  page present"   Documentation/admin-guide/mm/pagemap.rst
const PAGE_PRESENT = 1n << 63n;

// Implementation
/** x86-64's, and what most arm64 systems have. */
const PAGE = 4096;

const SYMBOLS = {
  // int clock_gettime(clockid_t clockid, struct timespec *tp);
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** Figures of several rounds. */
export interface Summary {
  /** The middle one. */
  readonly median: number;
  /** The lowest. */
  readonly low: number;
  /** The highest. */
  readonly high: number;
}

/** The middle of some figures, and how far they reach. `NaN` of none. */
export function summarize(figures: readonly number[]): Summary {
  const sorted = figures.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
  return { median, low: sorted[0] ?? NaN, high: sorted.at(-1) ?? NaN };
}

/** The figure that this share of all figures does not exceed: 0.99 for the 99th percentile. `NaN` of none. */
export function percentile(figures: readonly number[], share: number): number {
  const sorted = figures.toSorted((a, b) => a - b);
  return sorted[Math.ceil(share * sorted.length) - 1] ?? NaN;
}

/**
 * The middle of the ratios of figures taken in the same round: what disturbs a round disturbs both. A missing
 * figure leaves out its round.
 */
export function ratio(figures: readonly number[], others: readonly number[]): number {
  const ratios = figures.map((figure, round) => figure / (others[round] ?? NaN));
  return summarize(ratios.filter(Number.isFinite)).median;
}

let libc: Deno.DynamicLibrary<typeof SYMBOLS> | undefined;
const time = new Uint32Array(Timespec.Words);

/** What a clock shows (nanoseconds); `undefined` when there is none. */
function readClock(clock: number): number | undefined {
  libc ??= Deno.dlopen("libc.so.6", SYMBOLS);
  if (libc.symbols.clock_gettime(clock, time) !== 0) return undefined;
  return time[Timespec.Seconds]! * 1e9 + time[Timespec.Nanoseconds]!;
}

/** The system's monotonic time, which is the same in every process (nanoseconds). */
export function monotonicTime(): number {
  return readClock(CLOCK_MONOTONIC)!;
}

/**
 * The processor time of a process until now, of all its threads, in user space and in the kernel (nanoseconds).
 * It is what utime and stime of `/proc/PID/stat` add up to, without their rounding to 10 ms: the clock of
 * clock_getcpuclockid(3).
 *
 * @throws {Deno.errors.NotFound} when the process has ended.
 */
export function processorTime(pid: number): number {
  const time = readClock(~pid << 3 | CPUCLOCK_SCHED);
  if (time === undefined) {
    throw new Deno.errors.NotFound(`Cannot read the processor time of process ${pid}: it has ended`);
  }
  return time;
}

/** What the kernel has handed to the program behind a TUN device. */
export interface Handed {
  /** Packets; a super-packet is one. */
  readonly packets: number;
  /** Their bytes. */
  readonly bytes: number;
}

/** What was handed over by the devices in a process's network namespace, by name (proc_pid_net(5)). */
export function handedByDevice(pid: number): Map<string, Handed> {
  // " ta: bytes packets errs drop fifo frame compressed multicast | bytes packets ...", below two lines of titles.
  const lines = Deno.readTextFileSync(`/proc/${pid}/net/dev`).trimEnd().split("\n").slice(2);
  return new Map(lines.map((line) => {
    const [name, ...columns] = line.trim().split(/:?\s+/);
    return [name!, { packets: Number(columns[9]), bytes: Number(columns[8]) }];
  }));
}

/** A part of a process's memory. */
export interface MemoryPart {
  readonly address: number;
  readonly length: number;
}

/** The resident memory of a process (bytes; proc_pid_status(5)), or of a part of it (proc_pid_pagemap(5)). */
export function residentMemory(pid: number, part?: MemoryPart): number {
  if (part !== undefined) return residentPages(pid, part) * PAGE;
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return Number(/^VmRSS:\s*(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

function residentPages(pid: number, { address, length }: MemoryPart): number {
  const first = Math.floor(address / PAGE);
  const pages = new BigUint64Array(Math.ceil((address + length) / PAGE) - first);
  using file = Deno.openSync(`/proc/${pid}/pagemap`);
  file.seekSync(first * pages.BYTES_PER_ELEMENT, Deno.SeekMode.Start);
  let rest = new Uint8Array(pages.buffer);
  while (rest.length > 0) rest = rest.subarray(file.readSync(rest) ?? rest.length);
  return pages.filter((page) => (page & PAGE_PRESENT) !== 0n).length;
}
