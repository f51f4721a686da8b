/**
 * What tests/system/journal_test.ts has done inside a network namespace: one scenario a process, with --allow-ffi
 * alone. It prints what it saw as JSON.
 */

import { libc } from "../../driver/linux/libc.ts";
import { Journal, leftovers, repair } from "../../driver/linux/journal.ts";
import { setLink } from "../../driver/linux/netlink/links.ts";
import { Netlink } from "../../driver/linux/netlink/netlink.ts";
import { Family } from "../../driver/linux/netlink/prefix.ts";
import { addRoute, addRule, dumpRules } from "../../driver/linux/netlink/routes.ts";
import type { Change } from "../../driver/linux/netlink/message.ts";
import { openPlainTun } from "../kit/plain_tun.ts";

const rule = (priority: number): Change => addRule({ family: Family.Ipv4, priority, table: 51820 });

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
    const journal = Journal.open("tun0");
    openPlainTun("tun0");
    const [lo, kept] = [netlink.linkByName("lo")!, netlink.linkByName("d0")];
    const changes = [
      rule(100),
      addRoute(lo, { destination: { address: Uint8Array.of(198, 51, 100, 0), length: 24 } }),
    ];
    for (const change of changes) {
      journal.record(change.description, change.undo!);
      netlink.apply(change);
    }
    if (kept !== undefined) {
      const change = setLink(kept, { mtu: 1380, up: true });
      const second = Journal.open("d0");
      second.record(change.description, change.undo!);
      netlink.apply(change);
    }
    console.log(JSON.stringify({ path: journal.path }));
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
    const journal = Journal.open("tun0");
    const seen: unknown[] = [Journal.open("tun1").path !== journal.path];
    const exists = (): boolean => {
      const descriptor = libc().open(new TextEncoder().encode(`${journal.path}\0`), 0, 0);
      return descriptor >= 0 && libc().close(descriptor) === 0;
    };
    const undos = [rule(100).undo!, rule(101).undo!];
    seen.push(exists());
    undos.forEach((undo, i) => journal.record(`rule ${i}`, undo));
    seen.push(exists(), summary());
    journal.forget(undos[0]!);
    seen.push(exists());
    journal.forget(undos[1]!);
    seen.push(exists());
    journal.record("again", undos[0]!);
    journal.close();
    seen.push(exists());
    return seen;
  },

  /** What it is asked to write down must take something back. */
  wrong: () =>
    [dumpRules(Family.Ipv4), rule(100).undo!.subarray(0, 20), new Uint8Array(3)].map((message) => {
      try {
        Journal.open("tun0").record("add a rule", message);
        return "none";
      } catch (error) {
        return String(error);
      }
    }),

  path: () => {
    try {
      return Journal.open("tun0").path;
    } catch (error) {
      return String(error);
    }
  },
};

console.log(JSON.stringify(SCENARIOS[Deno.args[0]!]!()));
