/** Reads the journals of killed processes and undoes the changes that those processes left behind. */

import { checkFolder, listFolder } from "./files.ts";
import {
  checkUndo,
  currentOrigin,
  type JournalEntry,
  journalFolders,
  MAX_BYTES,
  type Origin,
  parseJournal,
} from "./journal_format.ts";
import { LockedFile } from "./locked_file.ts";
import { linkIndexOf } from "./netlink/links.ts";
import { MessageType } from "./netlink/message.ts";
import { Netlink } from "./netlink/netlink.ts";

// Implementation
/** Maximum number of files in a folder. */
const MAX_FILES = 4096;
/** Maximum number of journals of other network namespaces: each restart of a crashing container adds one. */
const MAX_OTHER_NAMESPACES = 256;
/** Maximum number of failures that are reported individually. */
const MAX_FAILURES = 4;
const FILE_NAME = /^([1-9]\d{0,9})-[0-9a-f]{16}-([^/\s]{1,15})\.jsonl$/;
/** Messages that identify a link by its index, which the kernel may have reused for a different link. */
const LINK_MESSAGES: readonly number[] = [MessageType.RTM_NEWLINK, MessageType.RTM_DELADDR];

/** The journal of a killed process. */
export interface Leftover {
  /** Path of the journal. */
  readonly path: string;
  /** Process ID, in the PID namespace of that process. */
  readonly pid: number;
  /** Name of the device that the changes were made for. */
  readonly device: string;
  /** Time when the journal was created (ISO 8601); `undefined` when its header line is incomplete. */
  readonly since: string | undefined;
  /** Changes, oldest first; none when a reboot has undone them. */
  readonly entries: readonly JournalEntry[];
}

/** Result of {@linkcode leftovers}. */
interface Leftovers {
  /** Leftovers of this network namespace, and those that a reboot has undone. */
  readonly found: Leftover[];
  /** Errors about files that are untrusted or cannot be read. Each names the file and a remedy. */
  readonly refused: Error[];
  /** Leftovers of other network namespaces. Some of these namespaces may no longer exist. */
  readonly otherNamespaces: Leftover[];
}

/** Finds the journals of killed processes, in this network namespace and in others; changes nothing. */
export function leftovers(): Leftovers {
  const origin = currentOrigin();
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
  for (const folder of journalFolders()) {
    const names = attempt(() => listJournals(folder)) ?? [];
    for (const name of names) {
      const read = attempt(() => readLeftover(`${folder}/${name}`, name, origin));
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

/** Reads a journal; `undefined` while its writer runs. `isHere` is true if it can be repaired in this namespace. */
function readLeftover(
  path: string,
  name: string,
  here: Origin,
): { leftover: Leftover; isHere: boolean } | undefined {
  const match = FILE_NAME.exec(name);
  if (match === null) {
    throw new SyntaxError(`Cannot read "${path}": its name is not that of a journal: remove it`);
  }
  using file = LockedFile.open(path);
  if (file === undefined) return undefined;
  const { origin, since, entries } = parseJournal(path, file.read(MAX_BYTES));
  // Nothing was changed yet, or a reboot has undone all changes.
  const isVoid = origin === undefined || origin.boot !== here.boot;
  return {
    leftover: { path, pid: Number(match[1]), device: match[2]!, since, entries: isVoid ? [] : entries },
    isHere: isVoid || origin.network === here.network,
  };
}

/**
 * Undoes the changes of a killed process, newest first, and removes its journal. Ignores changes that have already been
 * undone. If an undo message fails, the journal remains for a later attempt. Does nothing while another process repairs
 * the same leftover.
 *
 * @returns The failures.
 */
export function repair({ path, device, entries }: Leftover): Error[] {
  try {
    using file = LockedFile.open(path);
    if (file === undefined) return [];
    using netlink = Netlink.open();
    const names = new Map<number, string | undefined>();
    const entriesToUndo = entries.toReversed().filter((entry) => {
      const { type, body } = checkUndo(entry);
      if (!LINK_MESSAGES.includes(type)) return true;
      const index = linkIndexOf(body)!;
      if (!names.has(index)) names.set(index, netlink.link(index)?.name);
      return names.get(index) === device;
    });
    const undos = entriesToUndo.map(({ description, undo }) => ({
      description: `undo a change of ${device} ("${description}")`,
      request: undo,
    }));
    const failures = netlink.undoAll(undos);
    if (failures.size === 0) file.remove();
    return summarize([...failures.values()]);
  } catch (error) {
    return [error as Error];
  }
}

/** Returns the first failures, and an error with the number of the others. */
export function summarize(failures: readonly Error[]): Error[] {
  const others = failures.length - MAX_FAILURES;
  if (others <= 0) return [...failures];
  return [
    ...failures.slice(0, MAX_FAILURES),
    new Error(`Cannot undo ${others} other changes: see the first failures`),
  ];
}

/**
 * Repairs the leftovers of this network namespace, and removes all but the newest 256 journals of other network
 * namespaces. Runs at each start. Journals of failed repairs remain; `warren doctor` reports them.
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
