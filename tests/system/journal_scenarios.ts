/**
 * What tests/system/journal_test.ts has done inside a network namespace: one scenario a process, with --allow-ffi
 * alone. It prints what it saw as JSON.
 */

import { libc } from "../../driver/linux/libc.ts";
import { cString } from "../../driver/posix/libc.ts";
import { Journal, type JournalEntry, leftovers, repair } from "../../driver/linux/journal.ts";
import { setLink } from "../../driver/linux/netlink/links.ts";
import { Netlink } from "../../driver/linux/netlink/netlink.ts";
import { Family } from "../../driver/linux/netlink/prefix.ts";
import { addRoute, addRule, dumpRules } from "../../driver/linux/netlink/routes.ts";
import type { Change } from "../../driver/linux/netlink/message.ts";
import { openPlainTun } from "../kit/plain_tun.ts";

const rule = (priority: number): Change => addRule({ family: Family.Ipv4, priority, table: 51820 });

const entry = ({ description, undo }: Change): JournalEntry => ({ description, undo: undo! });

function summary(): unknown {
  const { found, refused } = leftovers();
  return {
    found: found.map(({ device, entries }) => [device, ...entries.map(({ description }) => description)]),
    refused: refused.map(String),
  };
}

const SCENARIOS: Record<string, () => unknown> = {
  /** Makes a device, a rule, a route through another link and a change of a persistent device, and hangs. */
  crash: () => {
    using netlink = Netlink.open();
    const journal = new Journal("tun0");
    openPlainTun("tun0");
    const [lo, kept] = [netlink.linkByName("lo")!, netlink.linkByName("d0")];
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

  /** Two find the same; the first to begin does it. */
  repairTwice: () => {
    const [first] = leftovers().found;
    return [repair(first!).map(String), repair(first!).map(String)];
  },

  /** The file is there while it has entries, and no longer. */
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
    journal.forget([one.undo]);
    seen.push(exists());
    journal.forget([other.undo]);
    seen.push(exists());
    journal.record([one]);
    seen.push(exists());
    journal.close();
    seen.push(exists());
    return seen;
  },

  /** What it is asked to write down must take something back. */
  wrong: () =>
    [dumpRules(Family.Ipv4), rule(100).undo!.subarray(0, 20), new Uint8Array(3)].map((message) => {
      try {
        new Journal("tun0").record([{ description: "add a rule", undo: message }]);
        return "none";
      } catch (error) {
        return String(error);
      }
    }),

  /** Which file a journal has once it has an entry. */
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
