/**
 * Write-ahead journal of changes that would outlive a crash; a later process undoes them.
 *
 *     record ──▶ one line per change ──▶ /run/warren/<pid>-<random>-<device>.jsonl, locked while its writer lives
 *                                                                          │ no lock: the writer is gone
 *     leftovers ◀── lines that were not struck out ◀───────────────────────┘
 *     repair ──▶ undo messages, newest first ──▶ file removed
 *
 * The kernel removes addresses and routes with their device. Policy rules, routes through other links and settings of a
 * persistent device stay when a process is killed. The first line names the boot and the network namespace; each other
 * line holds a change with its undo message, or strikes out an earlier line. A truncated last line is ignored: its
 * change was not made yet.
 */

import { gotValue } from "../../lib/core/options.ts";
import { concat, makeFolder } from "./files.ts";
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
/** Length above which a journal that is mostly struck out is rewritten (bytes). */
const REWRITE_BYTES = 256 * 1024;
const REWRITE_RATIO = 4;
const NAME_ATTEMPTS = 8;
const PATH_BYTES = 4096;
const DEVICE_NAME = /^[^/\s\0]{1,15}$/;

/**
 * Journal of one device of this process. Its file exists, locked, while there are entries.
 *
 * The file is in `/run/warren` (root only), `$XDG_RUNTIME_DIR/warren`, `/tmp/warren-<uid>` or `/dev/shm/warren-<uid>`:
 * the first folder that is private to this user, or can be made so, and accepts the write. When that folder becomes
 * full or read-only, the journal moves to the next one.
 *
 * @example Recording a change before making it
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
  /** Path of the file as a C string, kept up to date for other threads; empty while there is no file. */
  readonly sharedPath: Uint8Array = new Uint8Array(new SharedArrayBuffer(PATH_BYTES));
  readonly #device: string;
  /** Entries by their undo, with their number in the file and the length of their line. */
  readonly #entries = new Map<Uint8Array, { entry: JournalEntry; number: number; length: number }>();
  #file: LockedFile | undefined;
  /** Entries in the file, including those that were struck out. */
  #written = 0;
  /** Length of the entries' lines (bytes). */
  #length = 0;

  /** Starts an empty journal for the device of this name; writes nothing before the first entry. */
  constructor(device: string) {
    if (!DEVICE_NAME.test(device)) {
      throw new TypeError(
        `Cannot keep a journal: device must be the name of a link, ${gotValue(device)}`,
      );
    }
    this.#device = device;
  }

  /** Path of the file that holds the entries; `undefined` while there are none. */
  get path(): string | undefined {
    return this.#file?.path;
  }

  /**
   * Records changes that are about to be made. All are in the file when this returns, none when it throws.
   *
   * @throws {TypeError} for an undo that does not undo a change.
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
   * Strikes out changes that were undone or that failed, by the `undo`s given to `record`. It never throws: a remaining
   * entry is harmless, as `repair()` ignores changes that are gone already.
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
      // All folders are full.
    }
  }

  /** Removes the file, after everything was undone. */
  close(): void {
    const file = this.#file;
    this.#use(undefined);
    this.#entries.clear();
    this.#length = 0;
    file?.remove();
  }

  /** Leaves the file to the next start and to `warren doctor --repair`, after an undo failed. */
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

  /** Removes an entry; returns its number in the file. */
  #drop(undo: Uint8Array): number | undefined {
    const found = this.#entries.get(undo);
    if (found === undefined) return undefined;
    this.#entries.delete(undo);
    this.#length -= found.length;
    return found.number;
  }

  /** Appends lines to the file; `false` when they do not fit. */
  #append(bytes: Uint8Array<ArrayBuffer>): boolean {
    const file = this.#file;
    if (file === undefined || file.length + bytes.length > MAX_BYTES) return false;
    try {
      file.append(bytes);
      return true;
    } catch {
      // The disk is full or read-only by now: another folder may accept them.
      return false;
    }
  }

  /** Writes the entries to a new file, in the first folder that accepts them, and removes the old one. */
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
      // The file system is read-only by now. Its entries are harmless once they were undone.
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

/** Creates a journal with this content, in the first folder that accepts it. */
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
  throw new Deno.errors.Busy(
    `Cannot lock a journal in "${folder}": other processes locked ${NAME_ATTEMPTS} new files first`,
  );
}
