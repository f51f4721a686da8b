/** Changes that killed processes left behind: found in their journals, and undone. */

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
/** Maximum files in a folder. */
const MAX_FILES = 4096;
/** Maximum journals of other network namespaces: each restart of a crashing container adds one. */
const MAX_OTHER_NAMESPACES = 256;
/** Maximum failures that are reported one by one. */
const MAX_FAILURES = 4;
const FILE_NAME = /^([1-9]\d{0,9})-[0-9a-f]{16}-([^/\s]{1,15})\.jsonl$/;
/** Messages that refer to a link by its index, which may belong to another link by now. */
const OF_LINK: readonly number[] = [
  MessageType.RTM_NEWLINK,
  MessageType.RTM_DELLINK,
  MessageType.RTM_NEWADDR,
  MessageType.RTM_DELADDR,
];

/** Changes of a dead process. */
export interface Leftover {
  /** Path of its journal. */
  readonly path: string;
  /** Process ID in its own namespace. */
  readonly pid: number;
  /** Name of the device that the changes were for. */
  readonly device: string;
  /** Start of the journal, in ISO 8601; `undefined` when its first line is incomplete. */
  readonly since: string | undefined;
  /** Changes, oldest first; none when the system was rebooted since. */
  readonly entries: readonly JournalEntry[];
}

/** Result of {@linkcode leftovers}. */
export interface Leftovers {
  /** Leftovers that can be repaired here. */
  readonly found: Leftover[];
  /** Errors about other files, which were left alone: each names the file and what to do about it. */
  readonly refused: Error[];
  /**
   * Leftovers of other network namespaces, which a start there repairs. If such a namespace is gone, so are its
   * changes, but that cannot be seen from here.
   */
  readonly otherNamespaces: Leftover[];
}

/**
 * Finds what dead processes left behind, in this network namespace and in others. Changes nothing; files that cannot be
 * trusted or read are reported and left in place.
 */
export function leftovers(): Leftovers {
  const place = here();
  const found: Leftover[] = [];
  const refused: Error[] = [];
  const otherNamespaces: Leftover[] = [];
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
      if (read !== undefined) (read.isHere ? found : otherNamespaces).push(read.leftover);
    }
  }
  return { found, refused, otherNamespaces };
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

/** Reads a journal and compares its network namespace with this one; `undefined` while its writer lives. */
function readLeftover(
  path: string,
  name: string,
  place: Place,
): { leftover: Leftover; isHere: boolean } | undefined {
  const match = FILE_NAME.exec(name);
  if (match === null) {
    throw new SyntaxError(`Cannot read "${path}": its name is not that of a journal: remove it`);
  }
  using file = LockedFile.open(path);
  if (file === undefined) return undefined;
  const { written, since, entries } = parseJournal(path, file.read(MAX_BYTES));
  // Nothing was changed yet, or a reboot has undone it.
  const isOver = written === undefined || written.boot !== place.boot;
  return {
    leftover: { path, pid: Number(match[1]), device: match[2]!, since, entries: isOver ? [] : entries },
    isHere: isOver || written.network === place.network,
  };
}

/**
 * Undoes the changes of a dead process, newest first, and removes its journal. Changes that are gone already are
 * ignored. When an undo fails, the journal stays for a later attempt. Does nothing while another process repairs the
 * same leftover.
 *
 * @returns the failures.
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
        description: `undo a change of ${device} ("${description}")`,
        undo,
      })),
    );
    if (failures.size === 0) file.remove();
    return summarize([...failures.values()]);
  } catch (error) {
    return [error as Error];
  }
}

/** Shortens a list of failures to the first ones and the number of others. */
export function summarize(failures: readonly Error[]): Error[] {
  const others = failures.length - MAX_FAILURES;
  if (others <= 0) return [...failures];
  return [
    ...failures.slice(0, MAX_FAILURES),
    new Error(`Cannot undo ${others} other changes: see the first failures`),
  ];
}

/**
 * Repairs what earlier crashes left in this network namespace, and removes all but the newest 256 journals of other
 * network namespaces. Runs at each start; failures leave the journal, and `warren doctor` reports them.
 */
export function recover(): void {
  const { found, otherNamespaces } = leftovers();
  for (const leftover of found) repair(leftover);
  otherNamespaces.sort((a, b) => a.since! < b.since! ? 1 : -1);
  for (const { path } of otherNamespaces.slice(MAX_OTHER_NAMESPACES)) {
    try {
      using file = LockedFile.open(path);
      file?.remove();
    } catch {
      // The file system is read-only.
    }
  }
}
