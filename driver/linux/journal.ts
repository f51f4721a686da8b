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

import { makeFolder } from "./files.ts";
import {
  checkUndo,
  folders,
  here,
  type JournalEntry,
  line,
  MAX_BYTES,
  type Place,
  VERSION,
} from "./journal_format.ts";
import { LockedFile } from "./locked_file.ts";

// Implementation
/** A journal that is longer than this, and for the most part struck out, is written anew. */
const REWRITE_BYTES = 256 * 1024;
const REWRITE_RATIO = 4;
const NAME_ATTEMPTS = 8;
const PATH_BYTES = 4096;
const DEVICE_NAME = /^[^/\s\0]{1,15}$/;

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

function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  parts.reduce((offset, part) => (whole.set(part, offset), offset + part.length), 0);
  return whole;
}
