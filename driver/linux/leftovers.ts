/** Changes that processes left behind when they were killed: found in their journals, and taken back. */

import { checkFolder, listFolder } from "./files.ts";
import {
  checkUndo,
  folders,
  here,
  type JournalEntry,
  MAX_BYTES,
  parseJournal,
  type Place,
} from "./journal_format.ts";
import { LockedFile } from "./locked_file.ts";
import { linkIndexOf } from "./netlink/links.ts";
import { MessageType } from "./netlink/message.ts";
import { Netlink } from "./netlink/netlink.ts";

// Implementation
/** Journals and other files in a folder. */
const MAX_FILES = 4096;
/** Journals about other network namespaces that are kept: a container that crashes again and again has a new one each time. */
const MAX_ELSEWHERE = 256;
/** Failures that are told one by one. */
const MAX_FAILURES = 4;
const FILE_NAME = /^([1-9]\d{0,9})-[0-9a-f]{16}-([^/\s]{1,15})\.jsonl$/;
/** The messages that name a link by its index, which may by now be another link's. */
const OF_LINK: readonly number[] = [
  MessageType.RTM_NEWLINK,
  MessageType.RTM_DELLINK,
  MessageType.RTM_NEWADDR,
  MessageType.RTM_DELADDR,
];

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
  const { written, since, entries } = parseJournal(path, file.read(MAX_BYTES));
  // Nothing was done yet, or the system forgot it.
  const isOver = written === undefined || written.boot !== place.boot;
  return {
    leftover: { path, pid: Number(match[1]), device: match[2]!, since, entries: isOver ? [] : entries },
    isHere: isOver || written.network === place.network,
  };
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
