/**
 * Changes that would outlive a crash, written down before they are made, and put back by a later process.
 *
 *     record ──▶ one line a change ──▶ /run/warren/<pid>-<random>-<device>.jsonl, locked while its writer lives
 *                                                                          │ no lock: the writer is gone
 *     leftovers ◀── lines that were not struck out ◀───────────────────────┘
 *     repair ──▶ undo messages, newest first ──▶ file removed
 *
 * A device takes its addresses and routes with it. Policy rules, routes through other links and settings of a
 * persistent device stay when a process is killed. The first line says on which system and in which network
 * namespace; each other line is a change with the message that takes it back, or strikes out an earlier one. A
 * line that a crash or a full disk cut short says nothing: its change was not made yet.
 */

import { errno, libc } from "./libc.ts";
import { checkFolder, environment, listFolder, makeFolder, readLinkText, readSystemFile } from "./files.ts";
import { LockedFile } from "./locked_file.ts";
import { systemError } from "./errno.ts";
import { linkIndexOf, onlySettings } from "./netlink/links.ts";
import { Netlink } from "./netlink/netlink.ts";
import {
  Attributes,
  Flag,
  type Message,
  MessageType,
  messageTypeName,
  NLMSGHDR,
  readMessages,
  viewOf,
} from "./netlink/message.ts";

// Specification: asm-generic/socket.h
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOL_SOCKET = 1;
/** A number that no other network namespace has until the system starts anew (Linux 5.14). */
const SO_NETNS_COOKIE = 71;

// Implementation
const VERSION = 2;
/** The most that is written to a journal, and the most that is read from one: about 80,000 changes. */
const MAX_BYTES = 16 * 1024 * 1024;
/** A journal that is longer than this, and for the most part struck out, is written anew. */
const REWRITE_BYTES = 256 * 1024;
const REWRITE_RATIO = 4;
/** Journals and other files in a folder. */
const MAX_FILES = 4096;
/** Journals about other network namespaces that are kept: a container that crashes again and again has a new one each time. */
const MAX_ELSEWHERE = 256;
/** Failures that are told one by one. */
const MAX_FAILURES = 4;
const NAME_ATTEMPTS = 8;
const PATH_BYTES = 4096;
const FILE_NAME = /^([1-9]\d{0,9})-[0-9a-f]{16}-([^/\s]{1,15})\.jsonl$/;
const DEVICE_NAME = /^[^/\s\0]{1,15}$/;
// What an undo may be, and the length of its fixed structure.
const FIXED_BYTES = new Map<number, number>([
  [MessageType.RTM_NEWLINK, 16],
  [MessageType.RTM_DELLINK, 16],
  [MessageType.RTM_NEWADDR, 8],
  [MessageType.RTM_DELADDR, 8],
  [MessageType.RTM_NEWROUTE, 12],
  [MessageType.RTM_DELROUTE, 12],
  [MessageType.RTM_NEWRULE, 12],
  [MessageType.RTM_DELRULE, 12],
]);
// Those that name a link by its index, which may by now be another link's.
const OF_LINK: readonly number[] = [
  MessageType.RTM_NEWLINK,
  MessageType.RTM_DELLINK,
  MessageType.RTM_NEWADDR,
  MessageType.RTM_DELADDR,
];

/** One change that was to be taken back. */
export interface JournalEntry {
  /** What was done, such as `add the IPv4 rule 100: from all lookup 51820`. */
  readonly description: string;
  /** The netlink message that takes it back. */
  readonly undo: Uint8Array<ArrayBuffer>;
}

/** A dead process's changes. */
export interface Leftover {
  /** Its journal. */
  readonly path: string;
  /** The process's number, in its own namespace. */
  readonly pid: number;
  /** The device for which it was done. */
  readonly device: string;
  /** The start of the journal, in ISO 8601; `undefined` when it ends before it says so. */
  readonly since: string | undefined;
  /** What it did, oldest first; none when the system was started anew since. */
  readonly entries: readonly JournalEntry[];
}

/** What {@linkcode leftovers} found. */
export interface Leftovers {
  /** What can be repaired. */
  readonly found: Leftover[];
  /** Why other files were left alone: errors that name the file and what to do about it. */
  readonly refused: Error[];
  /**
   * Leftovers of other network namespaces: a start in those puts them back. Where the namespace is gone, so is what was
   * changed, which cannot be told from here.
   */
  readonly elsewhere: Leftover[];
}

/** The system that a journal was written on: its start, and the network namespace. */
interface Place {
  readonly boot: string;
  readonly network: string;
}

function here(): Place {
  return {
    boot: readSystemFile("/proc/sys/kernel/random/boot_id")?.trim() ?? "",
    network: networkNamespace(),
  };
}

/** Returns an identifier of this thread's network namespace. */
function networkNamespace(): string {
  const { socket, getsockopt, close } = libc();
  const descriptor = socket(AF_UNIX, SOCK_DGRAM, 0);
  if (descriptor < 0) throw systemError("open a socket", "socket", errno());
  const cookie = new Uint8Array(8);
  const known = getsockopt(descriptor, SOL_SOCKET, SO_NETNS_COOKIE, cookie, Uint32Array.of(8)) === 0;
  close(descriptor);
  // The number of the namespace's file is used again after the namespace is gone.
  return known ? `cookie:${cookie.toHex()}` : readLinkText("/proc/thread-self/ns/net") ?? "";
}

/** The folders that may hold journals, in the order in which they are tried. */
function folders(): string[] {
  const user = libc().geteuid();
  const runtime = environment("XDG_RUNTIME_DIR");
  return [
    ...(user === 0 ? ["/run/warren"] : []),
    ...(runtime?.startsWith("/") === true ? [`${runtime}/warren`] : []),
    `/tmp/warren-${user}`,
    // Writable in a container whose file system is not.
    `/dev/shm/warren-${user}`,
  ];
}

function line(content: unknown): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${JSON.stringify(content)}\n`);
}

function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  parts.reduce((offset, part) => (whole.set(part, offset), offset + part.length), 0);
  return whole;
}

/**
 * The journal of one device of this process. Its file is there while it has entries, and locked.
 *
 * The file is in `/run/warren` (root's), `$XDG_RUNTIME_DIR/warren`, `/tmp/warren-<uid>` or `/dev/shm/warren-<uid>`: in
 * the first that is, or can be made, this user's alone and that takes what is to be written. When that folder
 * becomes full or read-only, the journal moves to the next one.
 *
 * @example Writing down before doing
 * ```ts no-eval
 * import { Journal } from "./journal.ts";
 * import { Netlink } from "./netlink/netlink.ts";
 * import { addRule } from "./netlink/routes.ts";
 *
 * using netlink = Netlink.open();
 * const journal = new Journal("tun0");
 * const { request, description, undo } = addRule({ family: 2, priority: 100, table: 51820 });
 * journal.record([{ description, undo: undo! }]);
 * netlink.apply({ request, description });
 * ```
 */
export class Journal implements Disposable {
  /** The path of its file as C text, kept up to date, for another thread; empty while there is no file. */
  readonly sharedPath: Uint8Array = new Uint8Array(new SharedArrayBuffer(PATH_BYTES));
  readonly #device: string;
  /** The entries, by their undo, with their number in the file and the length of their line. */
  readonly #entries = new Map<Uint8Array, { entry: JournalEntry; number: number; length: number }>();
  #file: LockedFile | undefined;
  /** Entries that the file has, those that were struck out included. */
  #written = 0;
  /** The length of the lines of the entries. */
  #length = 0;

  /** A journal for the device of this name. Nothing is written before the first entry. */
  constructor(device: string) {
    if (!DEVICE_NAME.test(device)) {
      throw new TypeError(
        `Cannot keep a journal: device must be a link's name, got ${JSON.stringify(device)}`,
      );
    }
    this.#device = device;
  }

  /** The file that holds its entries; `undefined` while there are none. */
  get path(): string | undefined {
    return this.#file?.path;
  }

  /**
   * Writes down changes that are about to be made. They are in the file when this returns; when it throws, none is.
   *
   * @throws {TypeError} for an undo that takes nothing back.
   * @throws {RangeError} when the journal would be longer than can be read back.
   * @throws {Deno.errors.PermissionDenied} when no folder can hold a journal.
   */
  record(entries: readonly JournalEntry[]): void {
    const lines = entries.map(({ description, undo }) => {
      checkUndo(undo, description);
      return line({ description, undo: undo.toHex() });
    });
    if (lines.length === 0) return;
    const bytes = concat(lines);
    if (this.#length + bytes.length + line(this.#header()).length > MAX_BYTES) {
      throw new RangeError(
        `Cannot ${entries[0]!.description}: the journal of "${this.#device}" must have at most ` +
          `${MAX_BYTES} bytes: set fewer addresses, routes and rules that outlive the device`,
      );
    }
    entries.forEach((entry, i) => {
      const { length } = lines[i]!;
      this.#entries.set(entry.undo, { entry, number: this.#written + i, length });
      this.#length += length;
    });
    try {
      if (this.#append(bytes)) this.#written += entries.length;
      else this.#rewrite();
    } catch (error) {
      for (const { undo } of entries) this.#drop(undo);
      throw error;
    }
  }

  /**
   * Strikes out changes that were taken back, or that failed: the `undo`s that were given to `record`. It does not
   * fail: an entry too many does no harm, since repair() passes over what is gone already.
   */
  forget(undos: readonly Uint8Array[]): void {
    const numbers = undos.map((undo) => this.#drop(undo)).filter((number) => number !== undefined);
    const file = this.#file;
    if (numbers.length === 0 || file === undefined) return;
    try {
      if (this.#entries.size === 0) return this.close();
      const excess = file.length > REWRITE_BYTES && file.length > REWRITE_RATIO * this.#length;
      if (excess || !this.#append(concat(numbers.map((forget) => line({ forget }))))) this.#rewrite();
    } catch {
      // No folder takes another byte.
    }
  }

  /** Removes the file: everything was taken back. */
  close(): void {
    const file = this.#file;
    this.#use(undefined);
    this.#entries.clear();
    this.#length = 0;
    file?.remove();
  }

  /** Leaves the file to the next start and to `warren doctor --repair`: something could not be taken back. */
  abandon(): void {
    this.#file?.close();
    this.#use(undefined);
    this.#entries.clear();
    this.#length = 0;
  }

  /** {@linkcode Journal.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #header(): Place & { version: number; since: string } {
    return { version: VERSION, ...here(), since: new Date().toISOString() };
  }

  /** Takes an entry out; returns its number in the file. */
  #drop(undo: Uint8Array): number | undefined {
    const found = this.#entries.get(undo);
    if (found === undefined) return undefined;
    this.#entries.delete(undo);
    this.#length -= found.length;
    return found.number;
  }

  /** Adds lines to the file; returns whether it took them. */
  #append(bytes: Uint8Array<ArrayBuffer>): boolean {
    const file = this.#file;
    if (file === undefined || file.length + bytes.length > MAX_BYTES) return false;
    try {
      file.append(bytes);
      return true;
    } catch {
      // The disk is full, or read-only by now: another folder may take it.
      return false;
    }
  }

  /** Writes the entries into a new file, in the first folder that takes them, and removes the old one. */
  #rewrite(): void {
    const entries = [...this.#entries.values()];
    const lines = entries.map(({ entry: { description, undo } }) =>
      line({ description, undo: undo.toHex() })
    );
    const file = createFile(this.#device, concat([line(this.#header()), ...lines]));
    const old = this.#file;
    this.#use(file);
    entries.forEach((found, number) => found.number = number);
    this.#written = entries.length;
    try {
      old?.remove();
    } catch {
      // On a file system that is read-only by now. What it says is passed over, once it was taken back.
    }
  }

  #use(file: LockedFile | undefined): void {
    this.#file = file;
    this.#written = 0;
    this.sharedPath.fill(0);
    if (file !== undefined) {
      this.sharedPath.set(new TextEncoder().encode(file.path).subarray(0, PATH_BYTES - 1));
    }
  }
}

/** A new journal with this content, in the first folder that takes it. */
function createFile(device: string, content: Uint8Array<ArrayBuffer>): LockedFile {
  const failures: Error[] = [];
  for (const folder of folders()) {
    try {
      makeFolder(folder);
      return createIn(folder, device, content);
    } catch (error) {
      failures.push(error as Error);
    }
  }
  throw new Deno.errors.PermissionDenied(
    `Cannot keep a journal: ${
      failures.map(({ message }) => message).join("; ")
    }: make one of these folders writable`,
    { cause: new AggregateError(failures) },
  );
}

function createIn(folder: string, device: string, content: Uint8Array<ArrayBuffer>): LockedFile {
  for (let i = 0; i < NAME_ATTEMPTS; i++) {
    const random = crypto.getRandomValues(new Uint8Array(8)).toHex();
    const file = LockedFile.create(`${folder}/${Deno.pid}-${random}-${device}.jsonl`);
    if (file === undefined) continue;
    try {
      file.append(content);
      return file;
    } catch (error) {
      file.remove();
      throw error;
    }
  }
  throw new Deno.errors.Busy(`Cannot lock a journal in "${folder}": other processes take it first`);
}

/**
 * Finds what dead processes left behind, in this network namespace and in others. It changes nothing; files that cannot be
 * trusted or read are reported and left where they are.
 */
export function leftovers(): Leftovers {
  const place = here();
  const found: Leftover[] = [];
  const refused: Error[] = [];
  const elsewhere: Leftover[] = [];
  const attempt = <Result>(step: () => Result): Result | undefined => {
    try {
      return step();
    } catch (error) {
      refused.push(error as Error);
      return undefined;
    }
  };
  for (const folder of folders()) {
    const names = attempt(() => listJournals(folder)) ?? [];
    for (const name of names) {
      const read = attempt(() => readLeftover(`${folder}/${name}`, name, place));
      if (read !== undefined) (read.isHere ? found : elsewhere).push(read.leftover);
    }
  }
  return { found, refused, elsewhere };
}

function listJournals(folder: string): string[] {
  try {
    checkFolder(folder);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
  return listFolder(folder, MAX_FILES);
}

/** Reads a journal, and tells whether it is about this network namespace; `undefined` while its writer lives. */
function readLeftover(
  path: string,
  name: string,
  place: Place,
): { leftover: Leftover; isHere: boolean } | undefined {
  const match = FILE_NAME.exec(name);
  if (match === null) throw new SyntaxError(`Cannot read "${path}": its name is not a journal's: remove it`);
  using file = LockedFile.open(path);
  if (file === undefined) return undefined;
  const { written, since, entries } = parse(path, file.read(MAX_BYTES));
  // Nothing was done yet, or the system forgot it.
  const isOver = written === undefined || written.boot !== place.boot;
  return {
    leftover: { path, pid: Number(match[1]), device: match[2]!, since, entries: isOver ? [] : entries },
    isHere: isOver || written.network === place.network,
  };
}

/** A journal's content. */
interface Content {
  /** The system that it was written on; `undefined` when its writer ended before it said so. */
  readonly written: Place | undefined;
  readonly since: string | undefined;
  readonly entries: JournalEntry[];
}

/** @throws {SyntaxError} for text that no journal has. */
function parse(path: string, text: string): Content {
  const fail = (number: number, what: string, cause?: unknown): never => {
    throw new SyntaxError(`Cannot read the journal "${path}": line ${number}: ${what}: remove it`, { cause });
  };
  const isRecord = (value: unknown): value is Record<string, unknown> =>
    typeof value === "object" && value !== null && !Array.isArray(value);
  // A line that was cut short is not among them: its change was not made.
  const lines = text.split("\n").slice(0, -1).map((text, i) => {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      return fail(i + 1, "it is not JSON", error);
    }
    return isRecord(value) ? value : fail(i + 1, "it is not an object");
  });
  const [head, ...rest] = lines;
  if (head === undefined) return { written: undefined, since: undefined, entries: [] };
  const { version, boot, network, since } = head;
  if (version !== VERSION) fail(1, `version must be ${VERSION}, got ${JSON.stringify(version)}`);
  if (typeof boot !== "string" || typeof network !== "string" || typeof since !== "string") {
    return fail(1, "it does not say where and when it was written");
  }
  const entries: (JournalEntry | undefined)[] = [];
  rest.forEach(({ description, undo, forget }, i) => {
    if (typeof forget === "number" && forget in entries) {
      entries[forget] = undefined;
    } else if (typeof description === "string" && typeof undo === "string") {
      try {
        const bytes = Uint8Array.fromHex(undo);
        checkUndo(bytes, description);
        entries.push({ description, undo: bytes });
      } catch (error) {
        fail(i + 2, (error as Error).message, error);
      }
    } else fail(i + 2, "it has neither a description with its undo nor the number of one to forget");
  });
  return { written: { boot, network }, since, entries: entries.filter((entry) => entry !== undefined) };
}

/** @throws {TypeError} for bytes that are not one whole message of a kind that takes a change back. */
function checkUndo(undo: Uint8Array, description: string): Message {
  const fail = (what: string): never => {
    // From a file, a description may be anything.
    throw new TypeError(`Cannot undo ${JSON.stringify(description.slice(0, 100))}: ${what}`);
  };
  const [message] = readMessages(undo);
  if (message === undefined || viewOf(undo).getUint32(NLMSGHDR.len, true) !== undo.length) {
    return fail("it is not one whole message");
  }
  const { type, flags, body } = message;
  const fixed = FIXED_BYTES.get(type);
  if (fixed === undefined) return fail(`${messageTypeName(type)} takes no change back`);
  if (body.length < fixed || !new Attributes(body, fixed).whole) return fail("its lengths do not fit");
  const creates = type !== MessageType.RTM_NEWLINK && messageTypeName(type).startsWith("RTM_NEW");
  const allowed = Flag.Request | Flag.Ack | (creates ? Flag.Create | Flag.Exclusive : 0);
  if ((flags & Flag.Ack) === 0 || (flags & ~allowed) !== 0) return fail("its flags are not an undo's");
  if (type === MessageType.RTM_NEWLINK && !onlySettings(body)) {
    return fail("it sets more of a link than Warren does");
  }
  return message;
}

/**
 * Takes back what a process left behind, newest first, and removes its journal; what is gone already is passed
 * over. When something fails, the journal stays for a later attempt. Only one process repairs a leftover; for
 * others, it is done.
 *
 * @returns what failed.
 */
export function repair({ path, device, entries }: Leftover): Error[] {
  try {
    using file = LockedFile.open(path);
    if (file === undefined) return [];
    using netlink = Netlink.open();
    const ours = (index: number) => netlink.link(index)?.name === device;
    const links = new Map<number, boolean>();
    const undos = entries.toReversed().filter(({ description, undo }) => {
      const { type, body } = checkUndo(undo, description);
      if (!OF_LINK.includes(type)) return true;
      const index = linkIndexOf(body)!;
      if (!links.has(index)) links.set(index, ours(index));
      return links.get(index);
    });
    const failures = netlink.undoAll(
      undos.map(({ description, undo }) => ({
        description: `take back what ${device} had to "${description}"`,
        undo,
      })),
    );
    if (failures.size === 0) file.remove();
    return summarize([...failures.values()]);
  } catch (error) {
    return [error as Error];
  }
}

/** The first ones of many failures, and how many others there are. */
export function summarize(failures: readonly Error[]): Error[] {
  const others = failures.length - MAX_FAILURES;
  if (others <= 0) return [...failures];
  return [...failures.slice(0, MAX_FAILURES), new Error(`Cannot take back ${others} other changes`)];
}

/**
 * Does what a start does about earlier crashes: repairs what was left here, and removes all but the newest 256 journals
 * about other network namespaces. What fails stays, and `warren doctor` tells why.
 */
export function recover(): void {
  const { found, elsewhere } = leftovers();
  for (const leftover of found) repair(leftover);
  elsewhere.sort((a, b) => a.since! < b.since! ? 1 : -1);
  for (const { path } of elsewhere.slice(MAX_ELSEWHERE)) {
    try {
      using file = LockedFile.open(path);
      file?.remove();
    } catch {
      // The file system is read-only.
    }
  }
}
