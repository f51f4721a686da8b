/**
 * Scenarios of journal_test.ts in a network namespace: one per process, with --allow-ffi only. Each prints its result as
 * JSON.
 */

import { readAll } from "../../driver/linux/files.ts";
import { libc } from "../../driver/linux/libc.ts";
import { cString } from "../../driver/posix/libc.ts";
import { Journal } from "../../driver/linux/journal.ts";
import type { JournalEntry } from "../../driver/linux/journal_format.ts";
import { leftovers, recover, repair } from "../../driver/linux/leftovers.ts";
import { setLink } from "../../driver/linux/netlink/links.ts";
import { Netlink } from "../../driver/linux/netlink/netlink.ts";
import { Family } from "../../driver/linux/netlink/prefix.ts";
import { addRoute, addRule, dumpRules, ROUTE_PROTOCOL } from "../../driver/linux/netlink/routes.ts";
import { rescue } from "../../driver/linux/rescue.ts";
import { Setup } from "../../driver/linux/setup.ts";
import { checkDeviceOptions } from "../../driver/options.ts";
import type { Change } from "../../driver/linux/netlink/message.ts";
import { openPlainTun } from "../kit/plain_tun.ts";

const rule = (priority: number): Change => addRule({ family: Family.Ipv4, priority, table: 51820 });

/** `count` prefixes: 11.0.0.0/24, 11.0.1.0/24, ... */
const prefixes = (count: number): string[] =>
  Array.from({ length: count }, (_, i) => `11.${i >> 8}.${i & 255}.0/24`);

const CROWD = checkDeviceOptions({
  name: "d0",
  address: Array.from({ length: 1000 }, (_, i) => `10.9.${i >> 8}.${i & 255}/16`),
  route: prefixes(5000),
  rule: prefixes(1000).map((to) => ({ to, table: 77 })),
});

function openCrowd(): Setup {
  const netlink = Netlink.open();
  const setup = new Setup(netlink, "d0");
  setup.apply(netlink.link("d0")!, CROWD);
  return setup;
}

function pathOf({ sharedJournalPath: path }: Setup): string {
  return new TextDecoder().decode(path.slice(0, path.indexOf(0)));
}

function bytesOf(path: string): Uint8Array {
  const descriptor = libc().open(cString(path), 0, 0);
  const bytes = readAll(descriptor, path, 1 << 24);
  libc().close(descriptor);
  return bytes;
}

function linesOf(path: string): number {
  return new TextDecoder().decode(bytesOf(path)).split("\n").length - 1;
}

function thrownBy(call: () => unknown): string {
  try {
    call();
    return "none";
  } catch (error) {
    return String(error);
  }
}

const entry = ({ description, undo }: Change): JournalEntry => ({ description, undo });

function summary(): unknown {
  const { found, refused, otherNamespaces } = leftovers();
  return {
    found: found.map(({ device, entries }) => [device, ...entries.map(({ description }) => description)]),
    refused: refused.map(String),
    otherNamespaces: otherNamespaces.length,
  };
}

const SCENARIOS: Record<string, () => unknown> = {
  /** Makes a device, a rule, a route through another link and a change of a persistent device, and hangs. */
  crash: () => {
    using netlink = Netlink.open();
    const journal = new Journal("tun0");
    openPlainTun("tun0");
    const [lo, kept] = [netlink.link("lo")!, netlink.link("d0")];
    const changes = [
      rule(100),
      addRoute(lo, { destination: { address: Uint8Array.of(198, 51, 100, 0), length: 24 } }),
    ];
    for (const change of changes) {
      journal.record([entry(change)]);
      netlink.apply(change);
    }
    if (kept !== undefined) {
      const change = setLink(kept, { mtu: 1380, up: true });
      const second = new Journal("d0");
      second.record([entry(change)]);
      netlink.apply(change);
    }
    console.log(JSON.stringify({ path: journal.path, pid: Deno.pid }));
    // Long enough for the test to kill us.
    libc().poll(new Uint8Array(), 0n, 60_000);
  },

  leftovers: summary,

  repair: () => {
    const failures = leftovers().found.flatMap(repair);
    return { failures: failures.map(String), after: summary() };
  },

  /** Recovers from crashes, as a start does. */
  recover: () => {
    recover();
    return summary();
  },

  /** Two repairs of the same leftover; the first one does it. */
  repairTwice: () => {
    const [first] = leftovers().found;
    return [repair(first!).map(String), repair(first!).map(String)];
  },

  /** The file exists only while there are entries. */
  live: () => {
    const journal = new Journal("tun0");
    const seen: unknown[] = [];
    let path: string | undefined;
    const exists = (): boolean => {
      path = journal.path ?? path;
      const descriptor = path === undefined ? -1 : libc().open(cString(path), 0, 0);
      return descriptor >= 0 && libc().close(descriptor) === 0;
    };
    const [one, other] = [entry(rule(100)), entry(rule(101))];
    seen.push(exists());
    journal.record([one]);
    journal.record([other]);
    seen.push(exists(), summary());
    journal.forget([one]);
    seen.push(exists());
    journal.forget([other]);
    seen.push(exists());
    journal.record([one]);
    seen.push(exists());
    journal.close();
    seen.push(exists());
    return seen;
  },

  /** An entry must undo a change. */
  wrong: () =>
    [dumpRules(Family.Ipv4), rule(100).undo.subarray(0, 20), new Uint8Array(3)].map((message) => {
      try {
        new Journal("tun0").record([{ description: "add a rule", undo: message }]);
        return "none";
      } catch (error) {
        return String(error);
      }
    }),

  /** Sets up a persistent device with thousands of changes, and hangs. */
  crowd: () => {
    const setup = openCrowd();
    console.log(JSON.stringify({ path: pathOf(setup), pid: Deno.pid }));
    libc().poll(new Uint8Array(), 0n, 60_000);
  },

  /** The same, undone by the setup; the times of both (milliseconds). */
  crowdUndone: () => {
    const start = performance.now();
    const setup = openCrowd();
    const middle = performance.now();
    setup.undo();
    return { opened: middle - start, undone: performance.now() - middle, path: pathOf(setup) };
  },

  /** The same, undone by the watchdog's rescue, which ends the process. */
  crowdRescued: () => {
    const setup = openCrowd();
    rescue([setup.sharedJournalPath], 70);
  },

  /** Time of repair() (milliseconds) and its failures. */
  crowdRepaired: () => {
    const start = performance.now();
    const failures = leftovers().found.flatMap(repair);
    return { failures: failures.map(String), took: performance.now() - start, after: summary() };
  },

  /** A change in the middle fails: those before it are undone, and those that were not made are not in the journal. */
  half: () => {
    using netlink = Netlink.open();
    const link = netlink.link("d0")!;
    const setup = new Setup(netlink, "d0");
    // The kernel refuses the same route again.
    const route = [...prefixes(100), "11.0.99.0/24", ...prefixes(300).slice(200)];
    const count = () =>
      netlink.routes(link.index).filter(({ protocol }) => protocol === ROUTE_PROTOCOL).length;
    const thrown = thrownBy(() => setup.apply(link, checkDeviceOptions({ name: "d0", route })));
    const made = count();
    setup.undo();
    return { thrown, made, after: count(), path: pathOf(setup) };
  },

  /** Entries that do not fit are refused before the change, and leave the journal as it is. */
  limit: () => {
    const journal = new Journal("tun0");
    const first = entry(rule(100));
    journal.record([first]);
    const long = { ...entry(rule(2)), description: "x".repeat(10_000) };
    const many = [entry(rule(1)), ...Array.from({ length: 1700 }, () => long)];
    const thrown = thrownBy(() => journal.record(many));
    const lines = linesOf(journal.path!);
    journal.forget([first]);
    return { thrown, lines, path: journal.path ?? "none" };
  },

  /** A journal with many short-lived entries stays short. */
  turns: () => {
    const journal = new Journal("tun0");
    journal.record([entry(rule(1))]);
    let longest = 0;
    for (let i = 0; i < 5000; i++) {
      const one = entry(rule(2 + i));
      journal.record([one]);
      longest = Math.max(longest, bytesOf(journal.path!).length);
      journal.forget([one]);
    }
    journal.record([entry(rule(30_000))]);
    const path = journal.path!;
    journal.abandon();
    return {
      longest,
      left: leftovers().found.map(({ entries }) => entries.map(({ description }) => description)),
      path,
    };
  },

  /** The file system becomes full between two changes. */
  full: () => {
    const journal = new Journal("tun0");
    const many = Array.from({ length: 200 }, (_, i) => entry(rule(i + 1)));
    journal.record(many.slice(0, 1));
    const first = journal.path!;
    journal.record(many.slice(1));
    const second = journal.path!;
    const gone = libc().open(cString(first), 0, 0) < 0;
    const shared = new TextDecoder().decode(journal.sharedPath.slice(0, second.length));
    journal.abandon();
    const left = leftovers().found.map(({ path, entries }) => [path === second, entries.length]);
    return { first, second, gone, shared: shared === second, left };
  },

  /** File of a journal with an entry. */
  path: () => {
    const journal = new Journal("tun0");
    try {
      journal.record([entry(rule(100))]);
      return journal.path;
    } catch (error) {
      return String(error);
    } finally {
      journal.close();
    }
  },
};

console.log(JSON.stringify(SCENARIOS[Deno.args[0]!]!()));
