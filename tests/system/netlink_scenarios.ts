/**
 * Scenarios of netlink_test.ts in a network namespace: one per process, with --allow-ffi only, on the device `d0`. Each
 * prints its result as JSON; addresses are text.
 */

import { parseAddress, parseCidr } from "../../lib/wire/address.ts";
import { LinuxHostRoutes } from "../../driver/linux/host_routes.ts";
import { LinkMonitor } from "../../driver/linux/netlink/link_monitor.ts";
import { addAddress, type Link, setLink } from "../../driver/linux/netlink/links.ts";
import { CHANGE, type Change, MessageType, withType } from "../../driver/linux/netlink/message.ts";
import { Netlink } from "../../driver/linux/netlink/netlink.ts";
import {
  Family,
  formatRawAddress,
  formatRawPrefix,
  type RawPrefix,
} from "../../driver/linux/netlink/prefix.ts";
import {
  addRoute,
  addRule,
  MAIN_TABLE,
  type RouteOptions,
  RouteType,
} from "../../driver/linux/netlink/routes.ts";
import { NetlinkSocket } from "../../driver/linux/netlink/socket.ts";

const RULES = 200;
const FLOOD = 4000;

function prefix(text: string): RawPrefix {
  const { address, length } = parseCidr(text);
  return { address: address.bytes, length };
}

function address(text: string): Uint8Array {
  return parseAddress(text).bytes;
}

/** Error that a call throws, as `Name: message`; `none` when it does not throw. */
function thrownBy(call: () => unknown): string {
  try {
    call();
    return "none";
  } catch (error) {
    return `${(error as Error).name}: ${(error as Error).message}`;
  }
}

function readable(key: string, value: unknown): unknown {
  if (!(value instanceof Uint8Array)) return value;
  return key === "request" || key === "undo" ? value.toHex() : formatRawAddress(value);
}

/** Returns the errors of undo messages. */
function undoAll(netlink: Netlink, messages: readonly Uint8Array<ArrayBuffer>[]): string[] {
  return messages.map((request) => thrownBy(() => netlink.undo({ request, description: "undo" }))).filter((
    thrown,
  ) => thrown !== "none");
}

/** Returns the removal of what a change adds. */
function removal({ description, request, undo }: Change): Change {
  return {
    description: description.replace(/^add/, "remove").replace(" to d0", " from d0"),
    request: undo,
    undo: request,
  };
}

function deleteLink(link: Link): Change {
  const { request, undo } = setLink(link, {});
  return {
    description: `remove ${link.name}`,
    request: withType(request, MessageType.RTM_DELLINK, CHANGE),
    undo,
  };
}

const SCENARIOS: Record<string, (netlink: Netlink, link: Link) => unknown> = {
  link: (netlink) => ({
    byName: netlink.link("d0"),
    byIndex: netlink.link(netlink.link("d0")!.index),
    lo: netlink.link("lo"),
    absent: [netlink.link("nowhere"), netlink.link("a name that is too long"), netlink.link("")]
      .every((link) => link === undefined) && netlink.link(9999) === undefined,
  }),

  setLink: (netlink, link) => {
    const change = setLink(link, { mtu: 1380, up: true, txQueueLength: 5000 });
    netlink.apply(change);
    return {
      undo: change.undo,
      after: netlink.link(link.index),
      tooLong: thrownBy(() => netlink.apply(setLink(link, { mtu: 1 << 30 }))),
      absent: thrownBy(() => netlink.apply(setLink({ ...link, name: "d9", index: 9999 }, { mtu: 1400 }))),
      zero: thrownBy(() => netlink.link(0)),
    };
  },

  deleteLink: (netlink, link) => {
    netlink.apply(deleteLink(link));
    return {
      gone: netlink.link(link.index) === undefined,
      again: thrownBy(() => netlink.apply(deleteLink(link))),
      addresses: netlink.addresses(link.index),
      routes: netlink.routes(link.index),
    };
  },

  addAddresses: (netlink, link) => {
    const prefixes = ["10.9.0.1/24", "10.9.1.1/32", "fd00:9::1/64", "fd00:9::2/128"].map(prefix);
    for (const prefix of prefixes) netlink.apply(addAddress(link, prefix));
    return {
      listed: netlink.addresses(link.index).map(formatRawPrefix),
      again: thrownBy(() => netlink.apply(addAddress(link, prefixes[0]!))),
    };
  },

  removeAddresses: (netlink, link) => {
    for (const prefix of netlink.addresses(link.index)) {
      const { request, undo } = removal(addAddress(link, prefix));
      // Removed, added and removed again: an addition undoes a removal.
      for (const message of [request, undo, request]) {
        netlink.apply({ request: message, description: "move an address" });
      }
    }
    return {
      listed: netlink.addresses(link.index),
      again: thrownBy(() => netlink.apply(removal(addAddress(link, prefix("10.9.0.1/24"))))),
    };
  },

  addRoutes: (netlink, link) => {
    const routes: RouteOptions[] = [
      { destination: prefix("10.20.0.0/16"), metric: 77, table: 1000 },
      {
        destination: prefix("0.0.0.0/0"),
        gateway: address("10.9.0.2"),
        source: address("10.9.0.1"),
        metric: 5,
      },
      { destination: prefix("fd01::/32"), gateway: address("fd00:9::5"), table: 70000 },
      { destination: prefix("::/0"), metric: 9 },
    ];
    const changes = routes.map((route) => addRoute(link, route));
    changes.push(addRoute(undefined, {
      destination: prefix("192.0.2.0/24"),
      type: RouteType.Unreachable,
      table: 1000,
    }));
    changes.forEach((change) => netlink.apply(change));
    return {
      undo: changes.map(({ undo }) => undo.toHex()),
      listed: netlink.routes(link.index).filter(({ protocol }) => protocol === 87),
      again: thrownBy(() => netlink.apply(changes[0]!)),
      badGateway: thrownBy(() =>
        netlink.apply(
          addRoute(link, { destination: prefix("10.30.0.0/16"), gateway: address("203.0.113.1"), table: 7 }),
        )
      ),
      badPrefix: thrownBy(() => netlink.apply(addRoute(link, { destination: prefix("10.30.0.1/16") }))),
      to: netlink.routeTo(address("198.51.100.1")),
      to6: netlink.routeTo(address("2001:db8::1")),
    };
  },

  strangers: (netlink, link) => {
    // Both were made by `ip` and differ only in their protocol number.
    const route = removal(addRoute(link, { destination: prefix("10.40.0.0/16") }));
    const rule = addRule({ family: Family.Ipv4, priority: 300, table: 300 });
    return {
      route: thrownBy(() => netlink.apply(route)),
      rule: thrownBy(() => netlink.apply({ request: rule.undo, description: "remove it" })),
      failures: undoAll(netlink, [route.request, rule.undo]).length,
    };
  },

  noRoute: (netlink) => ({ to: netlink.routeTo(address("198.51.100.1")) ?? "none" }),

  addRules: (netlink) => {
    const free = [netlink.freePriority(Family.Ipv4)];
    const changes = [
      addRule({ family: Family.Ipv4, priority: 100, table: 51820, fwmark: 0xca6c, not: true }),
      addRule({ family: Family.Ipv4, priority: 99, table: 254, suppressPrefixLength: 0 }),
      addRule({
        family: Family.Ipv4,
        priority: 98,
        table: 7,
        from: prefix("10.0.0.0/8"),
        to: prefix("10.1.0.0/16"),
        iif: "lo",
      }),
      addRule({ family: Family.Ipv6, priority: 97, table: 8, oif: "d0", fwmark: 1, mask: 0xff }),
      addRule({ family: Family.Ipv6, priority: 96, table: 9, to: prefix("fd00::/8") }),
    ];
    changes.forEach((change) => netlink.apply(change));
    free.push(netlink.freePriority(Family.Ipv4));
    return {
      free,
      undo: changes.map(({ undo }) => undo.toHex()),
      v4: netlink.rules(Family.Ipv4).filter(({ protocol }) => protocol === 87),
      v6: netlink.rules(Family.Ipv6).filter(({ protocol }) => protocol === 87),
      again: thrownBy(() => netlink.apply(changes[0]!)),
    };
  },

  manyRules: (netlink) => {
    for (let i = 1; i <= RULES; i++) {
      netlink.apply(
        addRule({ family: Family.Ipv4, priority: i, table: 1000 + i, from: prefix("10.0.0.0/8") }),
      );
    }
    return netlink.rules(Family.Ipv4).map(({ table }) => table);
  },

  replay: (netlink) => {
    const messages = Deno.args.slice(1).map((hex) => Uint8Array.fromHex(hex));
    return { first: undoAll(netlink, messages), second: undoAll(netlink, messages) };
  },

  monitor: (netlink, link) => {
    using monitor = LinkMonitor.open(link.index);
    const seen = [monitor.drain()];
    const news = (change: () => void): void => {
      change();
      seen.push(monitor.drain());
    };
    const lo = netlink.link("lo")!;
    news(() => netlink.apply(setLink(lo, { mtu: 30000 })));
    news(() => netlink.apply(setLink(link, { up: true })));
    news(() => netlink.apply(setLink(link, { mtu: 1300 })));
    news(() => netlink.apply(setLink(link, { up: false, mtu: 1400 })));
    news(() => netlink.apply(deleteLink(link)));
    seen.push(monitor.drain());
    return { seen, absent: thrownBy(() => LinkMonitor.open(9999)) };
  },

  overrun: (netlink, link) => {
    using monitor = LinkMonitor.open(link.index);
    // Far more messages than the socket's receive buffer holds.
    for (let i = 0; i < FLOOD; i++) netlink.apply(setLink(link, { mtu: 1300 + i % 100 }));
    netlink.apply(setLink(link, { up: true, mtu: 1234 }));
    const events = monitor.drain();
    netlink.apply(setLink(link, { mtu: 1111 }));
    return { count: events.length, last: events.slice(-2), after: monitor.drain() };
  },

  hostRoutes: (netlink, link) => {
    netlink.apply(setLink(link, { up: true }));
    netlink.apply(addAddress(link, prefix("10.8.0.1/24")));
    netlink.applyAll(
      Array.from(
        { length: 500 },
        (_, i) => addRoute(link, { destination: prefix(`10.9.${i >> 8}.${i & 255}/32`) }),
      ),
    );
    const system = new LinuxHostRoutes("t0");
    const { send } = NetlinkSocket.prototype;
    let requests = 0;
    NetlinkSocket.prototype.send = function (message) {
      requests++;
      return send.call(this, message);
    };
    const [mine, theirs] = ["10.8.0.7", "10.8.0.8"].map((text) =>
      system.add(parseAddress(text), [MAIN_TABLE], undefined)
    );
    const added = requests;
    system.drain();
    mine!.remove();
    const afterOwn = system.drain();
    const afterRoute = ["10.20.0.0/16", "10.8.0.0/16"].map((text) => {
      netlink.apply(addRoute(link, { destination: prefix(text), protocol: 3 }));
      return system.drain();
    });
    netlink.apply(removal(addRoute(link, { destination: prefix("10.8.0.8/32") })));
    const afterOther = system.drain();
    theirs!.refresh();
    const present = netlink.routes(link.index).some(({ destination }) =>
      formatRawPrefix(destination) === "10.8.0.8/32"
    );
    theirs!.remove();
    system.close();
    return { added, afterOwn, afterRoute, afterOther, present };
  },

  otherTunnels: (netlink, link) => {
    const other = netlink.link("d1")!;
    for (const one of [link, other]) netlink.apply(setLink(one, { up: true }));
    netlink.apply(addRoute(link, { destination: prefix("10.0.0.0/8"), protocol: 3 }));
    const system = new LinuxHostRoutes("t0");
    const links = (...hosts: string[]) => {
      system.drain();
      const routes = netlink.routes();
      return hosts.map((host) =>
        routes.find(({ destination }) => formatRawPrefix(destination) === `${host}/32`)?.index === other.index
      );
    };
    const [first, second] = ["10.8.0.7", "10.8.0.8"];
    const before = system.add(parseAddress(first!), [MAIN_TABLE], undefined);
    system.drain();
    netlink.apply(addRoute(other, { destination: prefix("10.8.0.0/16") }));
    // As the messages about a link when a tunnel opens.
    netlink.apply(setLink(other, { mtu: 1400 }));
    system.drain();
    before.refresh();
    const after = system.add(parseAddress(second!), [MAIN_TABLE], undefined);
    after.refresh();
    const intoOther = links(first!, second!);
    netlink.apply(deleteLink(other));
    system.drain();
    after.refresh();
    const left = netlink.routes(link.index).map(({ destination }) => formatRawPrefix(destination));
    for (const route of [before, after]) route.remove();
    system.close();
    return { intoOther, left: left.filter((text) => text.endsWith("/32")) };
  },

  unprivileged: (netlink, link) => ({
    seen: netlink.link(link.index)?.name,
    refused: thrownBy(() => netlink.apply(setLink(link, { mtu: 1400 }))),
  }),

  closed: (netlink) => {
    netlink.close();
    netlink.close();
    return thrownBy(() => netlink.link(1));
  },
};

using netlink = Netlink.open();
const scenario = SCENARIOS[Deno.args[0]!]!;
const link = netlink.link("d0")!;
console.log(JSON.stringify(scenario(netlink, link), readable));
