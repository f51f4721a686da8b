/** The stand-ins from TypeScript: their exports under Wine, and their mapped files from this side. */

/** Counters of wintun.c, in its order. */
const COUNTERS = [
  "loads",
  "adaptersCreated",
  "adaptersClosed",
  "handlesOpen",
  "sessionsStarted",
  "sessionsEnded",
  "injected",
  "injectedBytes",
  "overflowed",
  "delivered",
  "deliveredBytes",
  "releases",
  "unreadAtEnd",
  "corruptions",
  "allocated",
  "allocationsRefused",
  "sent",
  "sentBytes",
  "taken",
  "discarded",
  "untakenAtEnd",
  "unsentAtEnd",
  "tooLongForLink",
  "wakeups",
  "logged",
  "misuses",
  "driverDeletions",
  "errorsAtRandom",
  "invalidReads",
  "sessionsRefused",
  "nudges",
  "nudgesDiscarded",
] as const;

/** Counters of the stand-in for wintun.dll. */
export type Counters = Record<typeof COUNTERS[number], number>;

/** Words of the report by which another process causes faults, by their place. */
const COMMANDS = { removeAdapters: 64, stall: 65, corrupt: 66 } as const;
const WORD = 8;

function named(words: BigInt64Array): Counters {
  return Object.fromEntries(COUNTERS.map((name, place) => [name, Number(words[place])])) as Counters;
}

/** Report of a stand-in in another process (`STAND_IN_REPORT`); it outlives that process. */
export class StandInReport {
  readonly #path: string;

  /** Opens the report in this file, which need not exist yet. */
  constructor(path: string) {
    this.#path = path;
  }

  /** Counters so far. */
  get counters(): Counters {
    const bytes = Deno.readFileSync(this.#path);
    return named(new BigInt64Array(bytes.buffer, 0, COUNTERS.length));
  }

  /** Causes a fault. */
  command(name: keyof typeof COMMANDS, value = 1): void {
    using file = Deno.openSync(this.#path, { write: true });
    file.seekSync(COMMANDS[name] * WORD, Deno.SeekMode.Start);
    const word = new DataView(new ArrayBuffer(WORD));
    word.setBigInt64(0, BigInt(value), true);
    file.writeSync(new Uint8Array(word.buffer));
  }
}

/** State of the stand-in for iphlpapi.dll: rows as bytes in hexadecimal. */
export interface NetworkState {
  /** `MIB_UNICASTIPADDRESS_ROW`s. */
  readonly addresses: string[];
  /** `MIB_IPFORWARD_ROW2`s. */
  readonly routes: string[];
  /** `MIB_IPINTERFACE_ROW`s; they go with their adapters. */
  readonly interfaces: string[];
  /** Name servers and search lists. */
  readonly dns: string[];
}

/** The places of iphlpapi.c's `Network`. */
const MOST = 1000;
const TABLES = { addresses: 80, routes: 104, interfaces: 168, dns: 280 } as const;

/** The tables in the file of `STAND_IN_NETWORK`. */
export function readNetwork(path: string): NetworkState {
  const bytes = Deno.readFileSync(path);
  const view = new DataView(bytes.buffer);
  let offset = 4 * Object.keys(TABLES).length;
  const tables = Object.entries(TABLES).map(([name, size], table) => {
    const start = offset;
    offset += MOST * size;
    const rows = Array.from(
      { length: view.getUint32(4 * table, true) },
      (_, row) => bytes.subarray(start + row * size, start + (row + 1) * size).toHex(),
    );
    return [name, rows];
  });
  return Object.fromEntries(tables) as unknown as NetworkState;
}

/** Exports of wintun.c: those of Wintun, and those for tests. */
const SYMBOLS = {
  WintunCreateAdapter: { parameters: ["buffer", "buffer", "buffer"], result: "pointer" },
  createAside: {
    name: "WintunCreateAdapter",
    parameters: ["buffer", "buffer", "buffer"],
    result: "pointer",
    nonblocking: true,
  },
  WintunOpenAdapter: { parameters: ["buffer"], result: "pointer" },
  WintunCloseAdapter: { parameters: ["pointer"], result: "void" },
  WintunDeleteDriver: { parameters: [], result: "i32" },
  WintunGetAdapterLUID: { parameters: ["pointer", "buffer"], result: "void" },
  WintunGetRunningDriverVersion: { parameters: [], result: "u32" },
  WintunSetLogger: { parameters: ["function"], result: "void" },
  WintunStartSession: { parameters: ["pointer", "u32"], result: "pointer" },
  WintunEndSession: { parameters: ["pointer"], result: "void" },
  WintunGetReadWaitEvent: { parameters: ["pointer"], result: "pointer" },
  WintunReceivePacket: { parameters: ["pointer", "buffer"], result: "pointer" },
  WintunReleaseReceivePacket: { parameters: ["pointer", "pointer"], result: "void" },
  WintunAllocateSendPacket: { parameters: ["pointer", "u32"], result: "pointer" },
  WintunSendPacket: { parameters: ["pointer", "pointer"], result: "void" },
  StandInCounters: { parameters: ["buffer", "u32"], result: "void" },
  StandInInject: { parameters: ["buffer", "buffer", "u32"], result: "i32" },
  StandInTake: { parameters: ["buffer", "buffer", "u32"], result: "i32" },
  StandInCorrupt: { parameters: ["buffer"], result: "i32" },
  StandInEnd: { parameters: ["buffer"], result: "i32" },
  StandInStall: { parameters: ["i32"], result: "void" },
  StandInRefuseSessions: { parameters: ["u32", "u32"], result: "void" },
  StandInSeed: { parameters: ["u64"], result: "void" },
  StandInFuzz: { parameters: ["buffer", "u32"], result: "void" },
  StandInFlood: { parameters: ["buffer", "i64"], result: "void" },
  StandInLog: { parameters: ["i32", "i32"], result: "void" },
} as const satisfies Deno.ForeignLibraryInterface;

/** The functions of the stand-in. */
export type StandIn = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

/** Opens the stand-in named by `WARREN_WINTUN`, under Wine; shares it with the driver. */
export function openStandIn(): StandIn {
  return Deno.dlopen(Deno.env.get("WARREN_WINTUN")!, SYMBOLS).symbols;
}

/** Returns the counters of the stand-in, under Wine. */
export function countersOf({ StandInCounters }: StandIn): Counters {
  const words = new BigInt64Array(COUNTERS.length);
  StandInCounters(words, words.length);
  return named(words);
}

/** Converts text to a zero-terminated string in UTF-16LE. */
export function wide(text: string): Uint16Array<ArrayBuffer> {
  return Uint16Array.from(`${text}\0`, (unit) => unit.charCodeAt(0));
}
