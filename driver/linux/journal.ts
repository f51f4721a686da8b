/**
 * What a crash would leave behind, written down before it is done, and put back by a later process.
 *
 * A device takes its addresses and routes with it. Policy rules, routes through other links and settings of a
 * persistent device stay when a process is killed; so each of these is in a file until it was taken back. The
 * file's name says which process wrote it, and its content how to undo what that process did, newest last.
 */

import {
  checkFolder,
  environment,
  listFolder,
  makeFolder,
  readLinkText,
  readOwnFile,
  readSystemFile,
  removeFile,
  renameFile,
  replaceFile,
} from "./files.ts";
import { libc } from "./libc.ts";
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

// Specification: proc_pid_stat(5)
// Fields behind the command's closing parenthesis: (3) state, ..., (22) starttime.
const STAT_STATE = 0;
const STAT_START_TIME = 19;

// Implementation
const VERSION = 1;
const MOST_BYTES = 1 << 20;
const MOST_CHANGES = 4096;
const FILE_NAME = /^([1-9]\d{0,9})-(\d{1,20})-([^/]+)\.json$/;
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
  readonly undo: Uint8Array;
}

/** What a process that is no more left behind. */
export interface Leftover {
  /** The file that says so. */
  readonly path: string;
  /** The process's number. */
  readonly pid: number;
  /** The device for which it was done. */
  readonly device: string;
  /** What it did, oldest first; none when the system was started anew since. */
  readonly entries: readonly JournalEntry[];
}

/** What {@linkcode leftovers} found. */
export interface Leftovers {
  /** What can be repaired. */
  readonly found: Leftover[];
  /** Why other files were left alone: errors that name the file and what to do about it. */
  readonly refused: Error[];
}

/** The system that a file was written on: its start, its process numbers, its network. */
interface Place {
  readonly boot: string;
  readonly processes: string;
  readonly network: string;
}

function here(): Place {
  return {
    boot: readSystemFile("/proc/sys/kernel/random/boot_id")?.trim() ?? "",
    processes: readLinkText("/proc/self/ns/pid") ?? "",
    // The thread's, which is what its sockets are in.
    network: readLinkText("/proc/thread-self/ns/net") ?? "",
  };
}

/** When a process started (clock ticks since the system's start); `undefined` when it is no more. */
function startTime(pid: number | "self"): string | undefined {
  const stat = readSystemFile(`/proc/${pid}/stat`);
  // The command may contain spaces and parentheses.
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
  const state = fields?.[STAT_STATE];
  return state === "Z" || state === "X" ? undefined : fields?.[STAT_START_TIME];
}

function folders(): string[] {
  const user = libc().geteuid();
  const runtime = environment("XDG_RUNTIME_DIR");
  return [
    ...(user === 0 ? ["/run/warren"] : []),
    ...(runtime?.startsWith("/") === true ? [`${runtime}/warren`] : []),
    `/tmp/warren-${user}`,
  ];
}

/** The first folder that can be had. */
function openFolder(): string {
  const failures: unknown[] = [];
  for (const path of folders()) {
    try {
      makeFolder(path);
      checkFolder(path);
      return path;
    } catch (error) {
      failures.push(error);
    }
  }
  throw failures.length === 1 ? failures[0] : new Deno.errors.PermissionDenied(
    `Cannot open a journal: ${failures.map((error) => (error as Error).message).join("; ")}`,
    { cause: new AggregateError(failures) },
  );
}

/**
 * The journal of one device of this process. Its file is there while it has entries.
 *
 * @example Writing down before doing
 * ```ts no-eval
 * import { Journal } from "./journal.ts";
 * import { Netlink } from "./netlink/netlink.ts";
 * import { addRule } from "./netlink/routes.ts";
 *
 * using netlink = Netlink.open();
 * const journal = Journal.open("tun0");
 * const change = addRule({ family: 2, priority: 100, table: 51820 });
 * journal.record(change.description, change.undo!);
 * netlink.apply(change);
 * ```
 */
export class Journal implements Disposable {
  readonly #path: string;
  readonly #device: string;
  readonly #place = here();
  #entries: JournalEntry[] = [];

  private constructor(path: string, device: string) {
    this.#path = path;
    this.#device = device;
  }

  /**
   * Opens the journal for a device, in `/run/warren`, `$XDG_RUNTIME_DIR/warren` or `/tmp/warren-<uid>`: in the
   * first that is, or can be made, this user's alone.
   *
   * @throws {Deno.errors.PermissionDenied} when there is none.
   */
  static open(deviceName: string): Journal {
    if (!DEVICE_NAME.test(deviceName)) {
      throw new TypeError(`Cannot open a journal: ${JSON.stringify(deviceName)} is no name of a device`);
    }
    return new Journal(`${openFolder()}/${Deno.pid}-${startTime("self")}-${deviceName}.json`, deviceName);
  }

  /** The file that holds its entries. */
  get path(): string {
    return this.#path;
  }

  /** Writes down a change that is about to be made. It is in the file when this returns. */
  record(description: string, undo: Uint8Array): void {
    const entry = { description, undo };
    checkUndo(undo, description);
    this.#write([...this.#entries, entry]);
  }

  /** Strikes out a change that was taken back, or that failed: the `undo` that was given to `record`. */
  forget(undo: Uint8Array): void {
    this.#write(this.#entries.filter((entry) => entry.undo !== undo));
  }

  /** Removes the file: everything was taken back. */
  close(): void {
    this.#write([]);
  }

  /** {@linkcode Journal.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #write(entries: JournalEntry[]): void {
    if (entries.length === 0) {
      if (this.#entries.length > 0) removeFile(this.#path);
    } else {
      replaceFile(this.#path, format(this.#place, this.#device, entries));
    }
    this.#entries = entries;
  }
}

function format(place: Place, device: string, entries: readonly JournalEntry[]): string {
  const changes = entries.map(({ description, undo }) => ({ description, undo: undo.toHex() }));
  return JSON.stringify({ version: VERSION, ...place, device, changes }, undefined, 1) + "\n";
}

/**
 * What processes that are no more left behind in this network namespace. It changes nothing; files that cannot be
 * trusted or read are reported and left where they are.
 */
export function leftovers(): Leftovers {
  const place = here();
  const found: Leftover[] = [];
  const refused: Error[] = [];
  for (const folder of folders()) {
    const names = listFolder(folder).filter((name) => name.endsWith(".json"));
    if (names.length === 0) continue;
    try {
      checkFolder(folder);
    } catch (error) {
      refused.push(error as Error);
      continue;
    }
    for (const name of names) {
      try {
        const leftover = readLeftover(folder, name, place);
        if (leftover !== undefined) found.push(leftover);
      } catch (error) {
        refused.push(error as Error);
      }
    }
  }
  return { found, refused };
}

/** What a file says; `undefined` while its process lives, or when it is about another namespace. */
function readLeftover(folder: string, name: string, place: Place): Leftover | undefined {
  const path = `${folder}/${name}`;
  const match = FILE_NAME.exec(name);
  if (match === null) throw new SyntaxError(`Cannot read "${path}": its name is not a journal's: remove it`);
  const pid = Number(match[1]);
  const living = startTime(pid) === match[2];
  let text: string;
  try {
    text = readOwnFile(path, MOST_BYTES);
  } catch (error) {
    // Its process struck out its last entry meanwhile.
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  const content = parse(path, text);
  if (content.boot !== place.boot) return { path, pid, device: content.device, entries: [] };
  // In another namespace of processes, the number says nothing.
  if (content.processes !== place.processes || content.network !== place.network || living) return undefined;
  return { path, pid, device: content.device, entries: content.entries };
}

function parse(path: string, text: string): Place & { device: string; entries: JournalEntry[] } {
  const fail = (what: string, cause?: unknown): never => {
    throw new SyntaxError(`Cannot read the journal "${path}": ${what}: remove it`, { cause });
  };
  const isRecord = (value: unknown): value is Record<string, unknown> =>
    typeof value === "object" && value !== null && !Array.isArray(value);
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    return fail("it is no JSON, or cut short", error);
  }
  if (!isRecord(content)) return fail("it is no object");
  const { version, boot, processes, network, device, changes } = content;
  if (version !== VERSION) return fail(`its version is not ${VERSION}`);
  if (typeof boot !== "string" || typeof processes !== "string" || typeof network !== "string") {
    return fail("it does not say where it was written");
  }
  if (typeof device !== "string" || !DEVICE_NAME.test(device)) return fail("it names no device");
  if (!Array.isArray(changes) || changes.length > MOST_CHANGES) return fail("it has no list of changes");
  const entries = changes.map((change: unknown): JournalEntry => {
    if (!isRecord(change) || typeof change.description !== "string" || typeof change.undo !== "string") {
      return fail("one of its changes has no description or no undo");
    }
    try {
      const undo = Uint8Array.fromHex(change.undo);
      checkUndo(undo, change.description);
      return { description: change.description, undo };
    } catch (error) {
      return fail((error as Error).message, error);
    }
  });
  return { boot, processes, network, device, entries };
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
 * Takes back what a process left behind, newest first, and removes its file; what is gone already is well. When
 * something fails, the file stays for a later attempt. Only one process repairs a leftover; for others, it is
 * done.
 *
 * @returns what failed.
 */
export function repair(leftover: Leftover): Error[] {
  const folder = leftover.path.slice(0, leftover.path.lastIndexOf("/"));
  // Under our name it is nobody else's to repair while we live, and anybody's when we do not.
  const mine = `${folder}/${Deno.pid}-${startTime("self")}-${leftover.device}.of-${leftover.pid}.json`;
  const failures: Error[] = [];
  const attempt = (step: () => void) => {
    try {
      step();
    } catch (error) {
      failures.push(error as Error);
    }
  };
  attempt(() => {
    if (!renameFile(leftover.path, mine)) return;
    using netlink = Netlink.open();
    for (const { description, undo } of leftover.entries.toReversed()) {
      attempt(() => {
        const { type, body } = checkUndo(undo, description);
        if (OF_LINK.includes(type) && netlink.link(linkIndexOf(body)!)?.name !== leftover.device) return;
        netlink.undo(undo, `take back what ${leftover.device} had to "${description}"`);
      });
    }
    if (failures.length === 0) removeFile(mine);
  });
  return failures;
}
