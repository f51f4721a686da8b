/**
 * Write-ahead journal of changes that would outlive a crash, so that a later process can undo them.
 *
 *     record ──▶ one line per change ──▶ /run/warren/<pid>-<random>-<device>.jsonl, locked while its writer runs
 *                                                                          │ not locked: the writer is gone
 *     leftovers ◀── changes that were not cancelled ◀──────────────────────┘
 *     repair ──▶ undo messages, newest first ──▶ file removed
 *
 * When a process is killed, the kernel removes its device with the device's addresses and routes. Policy rules, routes
 * over other links and settings of a persistent device remain.
 *
 * The header line identifies the boot and the network namespace. Each further line records a change with its undo
 * message, or cancels an earlier change. A truncated last line is ignored, as its change was not made yet.
 */

import { gotValue } from "../../lib/core/options.ts";
import { concat, createFolder } from "./files.ts";
import {
  checkUndo,
  currentOrigin,
  encodeLine,
  type JournalEntry,
  journalFolders,
  MAX_BYTES,
  VERSION,
} from "./journal_format.ts";
import { LockedFile } from "./locked_file.ts";

// Implementation
/** A file that is longer than this (bytes) is rewritten if most of its entries are cancelled. */
const REWRITE_BYTES = 256 * 1024;
/** Length of a file, relative to its current entries, above which it is rewritten. */
const REWRITE_RATIO = 4;
const NAME_ATTEMPTS = 8;
const PATH_BYTES = 4096;
const DEVICE_NAME = /^[^/\s\0]{1,15}$/;

/**
 * Journal of one device in this process. Its file exists, and is locked, while there are entries.
 *
 * The file is in `/run/warren` (root only), `$XDG_RUNTIME_DIR/warren`, `/tmp/warren-<uid>` or `/dev/shm/warren-<uid>`,
 * in the first of these folders that is private to this user (or can be created) and is writable. When that folder
 * becomes full or read-only, the journal moves to the next.
 *
 * @example Recording a change before making it
 * ```ts no-eval
 * import { Journal } from "./journal.ts";
 * import { Netlink } from "./netlink/netlink.ts";
 * import { addRule } from "./netlink/routes.ts";
 *
 * using netlink = Netlink.open();
 * const journal = new Journal("tun0");
 * const change = addRule({ family: 2, priority: 100, table: 51820 });
 * journal.record([change]);
 * netlink.apply(change);
 * ```
 */
export class Journal {
  /** Current path of the file as a C string, shared with other threads; empty while there is no file. */
  readonly sharedPath: Uint8Array = new Uint8Array(new SharedArrayBuffer(PATH_BYTES));
  readonly #device: string;
  /** Entries, with their number in the file and the length of their line (bytes). */
  readonly #entries = new Map<JournalEntry, { number: number; length: number }>();
  #file: LockedFile | undefined;
  /** Number of entries in the file, including cancelled ones. */
  #written = 0;
  /** Total length of the lines of `#entries` (bytes). */
  #length = 0;

  /** Creates the journal of the device with this name; the first entry creates the file. */
  constructor(device: string) {
    if (!DEVICE_NAME.test(device)) {
      throw new TypeError(
        `Cannot keep a journal: device must be the name of a link, ${gotValue(device)}`,
      );
    }
    this.#device = device;
  }

  /** Path of the file; `undefined` while there are no entries. */
  get path(): string | undefined {
    return this.#file?.path;
  }

  /**
   * Records changes that are about to be made: all of them, or none if it throws.
   *
   * @throws {TypeError} when an undo message is invalid.
   * @throws {RangeError} when the journal would exceed the maximum length.
   * @throws {Deno.errors.PermissionDenied} when no folder can hold the journal.
   */
  record(entries: readonly JournalEntry[]): void {
    entries.forEach(checkUndo);
    const lines = entries.map(entryLine);
    if (lines.length === 0) return;
    const bytes = concat(lines);
    if (this.#length + bytes.length + headerLine().length > MAX_BYTES) {
      throw new RangeError(
        `Cannot ${entries[0]!.description}: the journal of "${this.#device}" must have at most ` +
          `${MAX_BYTES} bytes: set fewer addresses, routes and rules that outlive the device`,
      );
    }
    entries.forEach((entry, i) => {
      const { length } = lines[i]!;
      this.#entries.set(entry, { number: this.#written + i, length });
      this.#length += length;
    });
    try {
      if (this.#append(bytes)) this.#written += entries.length;
      else this.#rewrite();
    } catch (error) {
      for (const entry of entries) this.#remove(entry);
      throw error;
    }
  }

  /**
   * Cancels recorded changes that failed or have been undone. Never throws: an entry that remains is harmless, as
   * `repair` ignores changes that have already been undone.
   */
  forget(entries: readonly JournalEntry[]): void {
    const numbers = entries.map((entry) => this.#remove(entry)).filter((number) => number !== undefined);
    const file = this.#file;
    if (numbers.length === 0 || file === undefined) return;
    try {
      if (this.#entries.size === 0) return this.close();
      const excess = file.length > REWRITE_BYTES && file.length > REWRITE_RATIO * this.#length;
      if (excess || !this.#append(concat(numbers.map((forget) => encodeLine({ forget }))))) this.#rewrite();
    } catch {
      // All folders are full.
    }
  }

  /** Removes the file, after all changes have been undone. */
  close(): void {
    this.#clear()?.remove();
  }

  /** Closes the file but leaves it to the next start and to `warren doctor --repair`, after an undo message failed. */
  abandon(): void {
    this.#clear()?.close();
  }

  /** Forgets all entries; returns the file that held them. */
  #clear(): LockedFile | undefined {
    const file = this.#file;
    this.#use(undefined);
    this.#entries.clear();
    this.#length = 0;
    return file;
  }

  /** Removes an entry; returns its number in the file. */
  #remove(entry: JournalEntry): number | undefined {
    const found = this.#entries.get(entry);
    if (found === undefined) return undefined;
    this.#entries.delete(entry);
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
      // The file system has become full or read-only; one of the other folders may accept the lines.
      return false;
    }
  }

  /** Writes the entries to a new file and removes the old file. */
  #rewrite(): void {
    const lines = this.#entries.keys().map(entryLine);
    const file = createFile(this.#device, concat([headerLine(), ...lines]));
    const old = this.#file;
    this.#use(file);
    for (const found of this.#entries.values()) found.number = this.#written++;
    try {
      old?.remove();
    } catch {
      // The file system has become read-only. Undoing the entries of the old file again is harmless.
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

function headerLine(): Uint8Array<ArrayBuffer> {
  return encodeLine({ version: VERSION, ...currentOrigin(), since: new Date().toISOString() });
}

function entryLine({ description, undo }: JournalEntry): Uint8Array<ArrayBuffer> {
  return encodeLine({ description, undo: undo.toHex() });
}

/** Creates a journal with this content, in the first folder that accepts it. */
function createFile(device: string, content: Uint8Array<ArrayBuffer>): LockedFile {
  const failures: Error[] = [];
  for (const folder of journalFolders()) {
    try {
      createFolder(folder);
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
