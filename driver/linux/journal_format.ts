/** Format of journals: a header line about the system, then a line for each change and for each cancelled change. */

import { systemError } from "./errno.ts";
import { environment, readLinkText, readSystemFile } from "./files.ts";
import { errno, libc } from "./libc.ts";
import { onlySettings } from "./netlink/links.ts";
import {
  Attributes,
  CHANGE,
  type Change,
  type Message,
  MessageType,
  messageTypeName,
  NLMSGHDR,
  readMessages,
} from "./netlink/message.ts";
import { viewOf } from "../native_memory.ts";

// Specification: asm-generic/socket.h
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOL_SOCKET = 1;
/** Socket option with the cookie of the network namespace, which is unique until the next boot (Linux 5.14). */
const SO_NETNS_COOKIE = 71;

// Implementation
/** Version of the format. */
export const VERSION = 2;
/** Maximum length of a journal (bytes): about 80,000 changes. */
export const MAX_BYTES = 16 * 1024 * 1024;

/** Message types allowed in undo messages, with the length of their fixed structure (bytes). */
const FIXED_BYTES = new Map<number, number>([
  [MessageType.RTM_NEWLINK, 16],
  [MessageType.RTM_DELADDR, 8],
  [MessageType.RTM_DELROUTE, 12],
  [MessageType.RTM_DELRULE, 12],
]);

/** A change that must be undone, and the message that does so. */
export type JournalEntry = Pick<Change, "description" | "undo">;

/** The boot and the network namespace in which a journal was written. */
export interface Origin {
  readonly boot: string;
  readonly network: string;
}

/** Content of a journal. */
interface JournalContent {
  /** `undefined` when the writer ended before the header line was complete. */
  readonly origin: Origin | undefined;
  /** Time of creation (ISO 8601). */
  readonly since: string | undefined;
  readonly entries: JournalEntry[];
}

/** Returns the current boot and this thread's network namespace. */
export function currentOrigin(): Origin {
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
  // The inode number is only a fallback, as the kernel reuses it after a namespace is gone.
  return known ? `cookie:${cookie.toHex()}` : readLinkText("/proc/thread-self/ns/net") ?? "";
}

/** Returns the folders that may hold journals, in the order in which they are tried. */
export function journalFolders(): string[] {
  const user = libc().geteuid();
  const runtime = environment("XDG_RUNTIME_DIR");
  return [
    ...(user === 0 ? ["/run/warren"] : []),
    ...(runtime?.startsWith("/") === true ? [`${runtime}/warren`] : []),
    `/tmp/warren-${user}`,
    // Writable even in a container with a read-only file system.
    `/dev/shm/warren-${user}`,
  ];
}

/** Encodes a line of a journal. */
export function encodeLine(content: unknown): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${JSON.stringify(content)}\n`);
}

/**
 * Parses a journal.
 *
 * @throws {SyntaxError} when a line is not in this format, or has an undo message that `checkUndo` rejects.
 */
export function parseJournal(path: string, text: string): JournalContent {
  const fail = (number: number, what: string, cause?: unknown): never => {
    throw new SyntaxError(`Cannot read the journal "${path}": line ${number}: ${what}: remove it`, { cause });
  };
  const isRecord = (value: unknown): value is Record<string, unknown> =>
    typeof value === "object" && value !== null && !Array.isArray(value);
  // The change on a truncated last line was not made.
  const lines = text.split("\n").slice(0, -1).map((text, i) => {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      return fail(i + 1, "it is not JSON", error);
    }
    return isRecord(value) ? value : fail(i + 1, "it is not an object");
  });
  const [header, ...rest] = lines;
  if (header === undefined) return { origin: undefined, since: undefined, entries: [] };
  const { version, boot, network, since } = header;
  if (version !== VERSION) fail(1, `version must be ${VERSION}, got ${JSON.stringify(version)}`);
  if (typeof boot !== "string" || typeof network !== "string" || typeof since !== "string") {
    return fail(1, "boot, network and since must be strings");
  }
  const entries: (JournalEntry | undefined)[] = [];
  rest.forEach(({ description, undo, forget }, i) => {
    if (typeof forget === "number" && forget in entries) {
      entries[forget] = undefined;
    } else if (typeof description === "string" && typeof undo === "string") {
      try {
        const entry = { description, undo: Uint8Array.fromHex(undo) };
        checkUndo(entry);
        entries.push(entry);
      } catch (error) {
        fail(i + 2, (error as Error).message, error);
      }
    } else fail(i + 2, "it must have description and undo, or forget with the number of an entry");
  });
  return { origin: { boot, network }, since, entries: entries.filter((entry) => entry !== undefined) };
}

/**
 * Parses an undo message.
 *
 * @throws {TypeError} unless `undo` is exactly one message whose type, flags and attributes can undo a change.
 */
export function checkUndo({ undo, description }: JournalEntry): Message {
  const fail = (what: string): never => {
    // A description from a file may be of any length and content.
    throw new TypeError(`Cannot undo ${JSON.stringify(description.slice(0, 100))}: ${what}`);
  };
  const [message] = readMessages(undo);
  if (message === undefined || viewOf(undo).getUint32(NLMSGHDR.len, true) !== undo.length) {
    return fail("it is not one whole message");
  }
  const { type, flags, body } = message;
  const fixed = FIXED_BYTES.get(type);
  if (fixed === undefined) return fail(`${messageTypeName(type)} does not undo a change`);
  if (body.length < fixed || !new Attributes(body, fixed).whole) return fail("a length in it is wrong");
  if (flags !== CHANGE) return fail("its flags are not those of an undo");
  if (type === MessageType.RTM_NEWLINK && !onlySettings(body)) {
    return fail("it sets more than MTU, queue length, up or down of a link");
  }
  return message;
}
