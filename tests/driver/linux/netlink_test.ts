/**
 * rtnetlink messages, byte for byte and without a socket. The expected bytes are those that iproute2 6.1.0 sends for
 * the command in the test's name (`strace -e write=all`), with link index 2 for `d0` and sequence number 0.
 */

import { deepStrictEqual, match, notStrictEqual, strictEqual, throws } from "node:assert/strict";
import fc from "fast-check";
import { parseAddress, parseCidr } from "../../../lib/wire/address.ts";
import {
  addAddress,
  getLink,
  type Link,
  linkIndexOf,
  onlySettings,
  readAddress,
  readLink,
  setLink,
} from "../../../driver/linux/netlink/links.ts";
import {
  attribute,
  Attributes,
  encodeMessage,
  joinRequests,
  MessageType,
  messageTypeName,
  readMessages,
  readOutcome,
  withType,
} from "../../../driver/linux/netlink/message.ts";
import { Family, formatRawPrefix, type RawPrefix } from "../../../driver/linux/netlink/prefix.ts";
import {
  addRoute,
  addRule,
  dumpRoutes,
  isClonedRoute,
  readRoute,
  readRule,
  RouteType,
} from "../../../driver/linux/netlink/routes.ts";

const RTPROT_BOOT = 3;
const SEED = 0x57a77e;
const D0: Link = {
  index: 2,
  name: "d0",
  mtu: 1500,
  up: false,
  running: false,
  txQueueLength: 500,
  kind: "tun",
  persistent: true,
  queues: 0,
  statistics: undefined,
};
/** Message that deletes a link. */
const DELETION = withType(setLink(D0, {}).request, MessageType.RTM_DELLINK, 5);

function prefix(text: string): RawPrefix {
  const { address, length } = parseCidr(text);
  return { address: address.bytes, length };
}

function hex(bytes: Uint8Array | undefined): string {
  return bytes === undefined ? "none" : bytes.toHex().replace(/(..)(?=.)/g, "$1 ");
}

/** Registers a test that a message equals these lines of hexadecimal bytes. */
function golden(name: string, message: () => Uint8Array | undefined, ...lines: string[]): void {
  Deno.test(`encodes as ${name}`, () => strictEqual(hex(message()), lines.join(" ")));
}

golden(
  "ip addr add 10.9.0.1/24 dev d0",
  () => addAddress(D0, prefix("10.9.0.1/24")).request,
  "28 00 00 00 14 00 05 06 00 00 00 00 00 00 00 00",
  "02 18 00 00 02 00 00 00 08 00 02 00 0a 09 00 01",
  "08 00 01 00 0a 09 00 01",
);
golden(
  "ip addr del 10.9.0.1/24 dev d0",
  () => addAddress(D0, prefix("10.9.0.1/24")).undo,
  "28 00 00 00 15 00 05 00 00 00 00 00 00 00 00 00",
  "02 18 00 00 02 00 00 00 08 00 02 00 0a 09 00 01",
  "08 00 01 00 0a 09 00 01",
);
golden(
  "ip -6 addr add fd00::1/64 dev d0 nodad",
  () => addAddress(D0, prefix("fd00::1/64")).request,
  "40 00 00 00 14 00 05 06 00 00 00 00 00 00 00 00",
  "0a 40 02 00 02 00 00 00 14 00 02 00 fd 00 00 00",
  "00 00 00 00 00 00 00 00 00 00 00 01 14 00 01 00",
  "fd 00 00 00 00 00 00 00 00 00 00 00 00 00 00 01",
);
golden(
  "ip link set dev d0 mtu 1400",
  () => setLink(D0, { mtu: 1400 }).request,
  "28 00 00 00 10 00 05 00 00 00 00 00 00 00 00 00",
  "00 00 00 00 02 00 00 00 00 00 00 00 00 00 00 00",
  "08 00 04 00 78 05 00 00",
);
golden(
  "ip link set dev d0 up",
  () => setLink(D0, { up: true }).request,
  "20 00 00 00 10 00 05 00 00 00 00 00 00 00 00 00",
  "00 00 00 00 02 00 00 00 01 00 00 00 01 00 00 00",
);
golden(
  "ip link set dev d0 down, as the undo of up",
  () => setLink(D0, { up: true }).undo,
  "20 00 00 00 10 00 05 00 00 00 00 00 00 00 00 00",
  "00 00 00 00 02 00 00 00 00 00 00 00 01 00 00 00",
);
golden(
  "ip link set dev d0 txqueuelen 5000",
  () => setLink(D0, { txQueueLength: 5000 }).request,
  "28 00 00 00 10 00 05 00 00 00 00 00 00 00 00 00",
  "00 00 00 00 02 00 00 00 00 00 00 00 00 00 00 00",
  "08 00 0d 00 88 13 00 00",
);
golden(
  "ip link del d0",
  () => DELETION,
  "20 00 00 00 11 00 05 00 00 00 00 00 00 00 00 00",
  "00 00 00 00 02 00 00 00 00 00 00 00 00 00 00 00",
);
golden(
  "ip route add 10.0.0.0/8 dev d0",
  () => addRoute(D0, { destination: prefix("10.0.0.0/8"), protocol: RTPROT_BOOT }).request,
  "2c 00 00 00 18 00 05 06 00 00 00 00 00 00 00 00",
  "02 08 00 00 fe 03 fd 01 00 00 00 00 08 00 01 00",
  "0a 00 00 00 08 00 04 00 02 00 00 00",
);
golden(
  "ip route add 10.1.0.0/16 via 10.3.0.2 dev d0 src 10.3.0.1 metric 77 table 1000",
  () =>
    addRoute(D0, {
      destination: prefix("10.1.0.0/16"),
      gateway: parseAddress("10.3.0.2").bytes,
      source: parseAddress("10.3.0.1").bytes,
      metric: 77,
      table: 1000,
      protocol: RTPROT_BOOT,
    }).request,
  "4c 00 00 00 18 00 05 06 00 00 00 00 00 00 00 00",
  "02 10 00 00 00 03 00 01 00 00 00 00 08 00 01 00",
  "0a 01 00 00 08 00 05 00 0a 03 00 02 08 00 07 00",
  "0a 03 00 01 08 00 06 00 4d 00 00 00 08 00 0f 00",
  "e8 03 00 00 08 00 04 00 02 00 00 00",
);
golden(
  "ip -6 route add fd01::/16 dev d0 metric 5",
  () => addRoute(D0, { destination: prefix("fd01::/16"), metric: 5, protocol: RTPROT_BOOT }).request,
  "40 00 00 00 18 00 05 06 00 00 00 00 00 00 00 00",
  "0a 10 00 00 fe 03 00 01 00 00 00 00 14 00 01 00",
  "fd 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
  "08 00 06 00 05 00 00 00 08 00 04 00 02 00 00 00",
);
golden(
  "ip route add unreachable default table 99",
  () =>
    addRoute(undefined, {
      destination: prefix("0.0.0.0/0"),
      type: RouteType.Unreachable,
      table: 99,
      protocol: RTPROT_BOOT,
    }).request,
  "1c 00 00 00 18 00 05 06 00 00 00 00 00 00 00 00",
  "02 00 00 00 63 03 00 07 00 00 00 00",
);
golden(
  "ip rule add not fwmark 0xca6c table 51820 priority 100",
  () =>
    addRule({ family: Family.Ipv4, not: true, fwmark: 0xca6c, table: 51820, priority: 100, protocol: 0 })
      .request,
  "34 00 00 00 20 00 05 06 00 00 00 00 00 00 00 00",
  "02 00 00 00 00 00 00 01 02 00 00 00 08 00 0a 00",
  "6c ca 00 00 08 00 0f 00 6c ca 00 00 08 00 06 00",
  "64 00 00 00",
);
golden(
  "ip rule add from 10.0.0.0/8 to 10.1.0.0/16 iif lo table 99 priority 5",
  () =>
    addRule({
      family: Family.Ipv4,
      from: prefix("10.0.0.0/8"),
      to: prefix("10.1.0.0/16"),
      iif: "lo",
      table: 99,
      priority: 5,
      protocol: 0,
    }).request,
  "3c 00 00 00 20 00 05 06 00 00 00 00 00 00 00 00",
  "02 10 08 00 63 00 00 01 00 00 00 00 08 00 02 00",
  "0a 00 00 00 08 00 01 00 0a 01 00 00 07 00 03 00",
  "6c 6f 00 00 08 00 06 00 05 00 00 00",
);
golden(
  "ip rule add table main suppress_prefixlength 0 priority 99",
  () =>
    addRule({ family: Family.Ipv4, table: 254, suppressPrefixLength: 0, priority: 99, protocol: 0 }).request,
  "2c 00 00 00 20 00 05 06 00 00 00 00 00 00 00 00",
  "02 00 00 00 fe 00 00 01 00 00 00 00 08 00 0e 00",
  "00 00 00 00 08 00 06 00 63 00 00 00",
);
golden(
  "ip -6 rule add fwmark 0x1/0xff oif d0 table 7 priority 9",
  () =>
    addRule({ family: Family.Ipv6, fwmark: 1, mask: 0xff, oif: "d0", table: 7, priority: 9, protocol: 0 })
      .request,
  "3c 00 00 00 20 00 05 06 00 00 00 00 00 00 00 00",
  "0a 00 00 00 07 00 00 01 00 00 00 00 08 00 0a 00",
  "01 00 00 00 08 00 10 00 ff 00 00 00 07 00 11 00",
  "64 30 00 00 08 00 06 00 09 00 00 00",
);

Deno.test("the undo message of an addition is a deletion with the same body", () => {
  const route = { destination: prefix("10.0.0.0/8"), metric: 3 };
  const rule = { family: Family.Ipv4, table: 9, priority: 3 };
  for (
    const { request, undo } of [addAddress(D0, prefix("10.9.0.1/24")), addRoute(D0, route), addRule(rule)]
  ) {
    const [addition, deletion] = [request, undo].map((message) => readMessages(message)[0]!);
    deepStrictEqual(deletion, { ...addition, type: addition!.type + 1, flags: 5 });
    strictEqual(undo.length, request.length);
  }
});

Deno.test("the undo message of setLink() restores only the changed settings", () => {
  const changed: Link = { ...D0, mtu: 1400, up: true, txQueueLength: 5000 };
  const settings = { mtu: 1400, up: true, txQueueLength: 5000 };
  const { mtu, up, txQueueLength } = D0;
  strictEqual(hex(setLink(D0, settings).undo), hex(setLink(changed, { mtu, up, txQueueLength }).request));
  strictEqual(hex(setLink(D0, { mtu: 1400 }).undo), hex(setLink(D0, { mtu }).request));
});

Deno.test("the description of a change follows Cannot in errors", () => {
  const gateway = parseAddress("fd00::1").bytes;
  strictEqual(
    addRoute(D0, { destination: prefix("::/0"), gateway, metric: 5, table: 7 }).description,
    "add the route ::/0 via fd00::1 metric 5 in table 7 to d0",
  );
  strictEqual(
    addRule({
      family: Family.Ipv6,
      priority: 1,
      table: 7,
      not: true,
      to: prefix("fd00::/8"),
      fwmark: 1,
      mask: 3,
    })
      .description,
    "add the IPv6 rule 1: not from all to fd00::/8 fwmark 0x1/0x3 lookup 7",
  );
  strictEqual(
    setLink(D0, { mtu: 1400, txQueueLength: 9, up: false }).description,
    "set d0 to MTU 1400, queue length 9, down",
  );
});

Deno.test("invalid addresses and numbers are rejected before a message is encoded", () => {
  const four = Uint8Array.of(10, 0, 0, 0);
  throws(() => addAddress(D0, { address: new Uint8Array(5), length: 8 }), TypeError);
  throws(() => addAddress(D0, { address: four, length: 33 }), RangeError);
  throws(() => addAddress(D0, { address: four, length: -1 }), RangeError);
  throws(() => addRoute(D0, { destination: prefix("10.0.0.0/8"), gateway: new Uint8Array(16) }), TypeError);
  throws(
    () => addRule({ family: Family.Ipv6, priority: 1, table: 1, from: prefix("10.0.0.0/8") }),
    TypeError,
  );
  throws(() => setLink(D0, { mtu: -1 }), RangeError);
  throws(() => setLink(D0, { mtu: 1.5 }), RangeError);
  throws(() => setLink(D0, { mtu: 2 ** 32 }), RangeError);
  throws(() => addRule({ family: Family.Ipv4, priority: 1, table: -1 }), RangeError);
  throws(() => addRoute(D0, { destination: prefix("10.0.0.0/8"), table: -1 }), RangeError);
  strictEqual(getLink(""), undefined);
  strictEqual(getLink("sixteen-bytes-ab"), undefined);
  strictEqual(getLink("d0\0"), undefined);
  notStrictEqual(getLink("fifteen-bytes-a"), undefined);
});

Deno.test("readRoute() and readRule() read what addRoute() and addRule() write", () => {
  const route = {
    destination: prefix("fd01::/32"),
    type: RouteType.Unicast,
    gateway: parseAddress("fd00::9").bytes,
    source: parseAddress("fd00::1").bytes,
    metric: 7,
    table: 70000,
    protocol: 87,
  };
  const [message] = readMessages(addRoute(D0, route).request);
  deepStrictEqual(readRoute(message!.body), { ...route, via: undefined, index: 2 });
  const rule = {
    family: Family.Ipv4,
    priority: 5,
    table: 300,
    from: prefix("10.0.0.0/8"),
    to: prefix("10.1.0.0/16"),
    iif: "lo",
    oif: "d0",
    fwmark: 0xffffffff,
    mask: 0x80000000,
    not: true,
    suppressPrefixLength: 3,
    protocol: 87,
  };
  deepStrictEqual(readRule(readMessages(addRule(rule).request)[0]!.body), rule);
  const address = readAddress(readMessages(addAddress(D0, prefix("fd00::7/64")).request)[0]!.body)!;
  deepStrictEqual([formatRawPrefix(address), address.index], ["fd00::7/64", 2]);
});

Deno.test("readMessages() reads several messages, and stops at an invalid length", () => {
  const message = joinRequests([dumpRoutes(Family.Ipv4, 2)], 7);
  const bytes = new Uint8Array(message.length * 2 + 3).fill(0xa5);
  bytes.set(message);
  bytes.set(message, message.length);
  const messages = readMessages(bytes);
  deepStrictEqual(messages.map(({ type, sequence }) => [messageTypeName(type), sequence]), [
    ["RTM_GETROUTE", 7],
    ["RTM_GETROUTE", 7],
  ]);
  for (const length of [0, 15, message.length * 2 + 4, 0xffffffff]) {
    new DataView(bytes.buffer).setUint32(message.length, length, true);
    strictEqual(readMessages(bytes).length, 1);
  }
});

/** Encodes a reply: nlmsghdr (include/uapi/linux/netlink.h), then the payload. */
function reply(type: number, flags: number, ...body: number[]): Uint8Array {
  const bytes = Uint8Array.of(0, 0, 0, 0, type, 0, flags & 0xff, flags >> 8, 0, 0, 0, 0, 0, 0, 0, 0, ...body);
  new DataView(bytes.buffer).setUint32(0, bytes.length, true);
  return bytes;
}

Deno.test("readOutcome() finds the error text in capped replies, whole replies and NLMSG_DONE", () => {
  const EPERM = [0xff, 0xff, 0xff, 0xff];
  const words = [9, 0, 1, 0, ...new TextEncoder().encode("oops\0"), 0, 0, 0];
  const capped = [20, 0, 0, 0, 24, 0, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0];
  const outcome = (bytes: Uint8Array): unknown => readOutcome(readMessages(bytes)[0]!);
  // NLM_F_CAPPED | NLM_F_ACK_TLVS
  deepStrictEqual(outcome(reply(2, 0x300, ...EPERM, ...capped, ...words)), { errno: 1, text: "oops" });
  // Not capped: the request's payload of four bytes comes first.
  deepStrictEqual(outcome(reply(2, 0x200, ...EPERM, ...capped, 9, 9, 9, 9, ...words)), {
    errno: 1,
    text: "oops",
  });
  deepStrictEqual(outcome(reply(2, 0x100, ...EPERM, ...capped)), { errno: 1, text: undefined });
  deepStrictEqual(outcome(reply(2, 0, 0, 0, 0, 0, ...capped)), { errno: 0, text: undefined });
  deepStrictEqual(outcome(reply(3, 0x202, ...EPERM, ...words)), { errno: 1, text: "oops" });
  deepStrictEqual(outcome(reply(3, 2)), { errno: 0, text: undefined });
  strictEqual(outcome(reply(16, 0)), undefined);
  // The request's length is wrong.
  const wrong = [0xff, 0xff, 0xff, 0xff, ...capped.slice(4)];
  deepStrictEqual(outcome(reply(2, 0x200, ...EPERM, ...wrong, ...words)), { errno: 1, text: undefined });
});

Deno.test("readLink() ignores an RTM_DELLINK about a bridge port", () => {
  const AF_BRIDGE = 7;
  const body = readMessages(DELETION)[0]!.body;
  notStrictEqual(readLink(body), undefined);
  body[0] = AF_BRIDGE;
  strictEqual(readLink(body), undefined);
});

Deno.test("onlySettings() accepts only settings of setLink()", () => {
  const body = (message: Uint8Array): Uint8Array => readMessages(message)[0]!.body;
  strictEqual(onlySettings(body(setLink(D0, { mtu: 9, up: true, txQueueLength: 1 }).request)), true);
  const IFLA_MASTER = 10;
  const enslaved = encodeMessage(MessageType.RTM_NEWLINK, 5, new Uint8Array(16), attribute(IFLA_MASTER, 3));
  strictEqual(onlySettings(body(enslaved)), false);
  // IFF_PROMISC in the mask of flags to change.
  const promiscuous = new Uint8Array(16);
  promiscuous[13] = 1;
  strictEqual(onlySettings(body(encodeMessage(MessageType.RTM_NEWLINK, 5, promiscuous, []))), false);
});

Deno.test("readers never throw, whatever the bytes", () => {
  const readers = [readLink, readAddress, readRoute, readRule, linkIndexOf, onlySettings, isClonedRoute];
  const templates = [
    addRoute(D0, { destination: prefix("fd01::/32"), metric: 1, table: 999 }).request,
    addRule({ family: Family.Ipv4, priority: 1, table: 999, from: prefix("10.0.0.0/8"), iif: "lo" }).request,
    setLink(D0, { mtu: 1400, txQueueLength: 3 }).request,
    addAddress(D0, prefix("10.0.0.1/8")).request,
  ];
  const read = (bytes: Uint8Array): void => {
    for (const message of readMessages(bytes)) {
      readOutcome(message);
      for (const reader of readers) reader(message.body);
    }
    for (const reader of readers) reader(bytes);
    new Attributes(bytes, 0).nested(1).text(1);
  };
  const any = fc.uint8Array({ maxLength: 120 });
  const corrupted = fc.tuple(
    fc.constantFrom(...templates),
    fc.array(fc.tuple(fc.nat(80), fc.nat(255))),
    fc.nat(80),
  )
    .map(([template, changes, cut]) => {
      const bytes = template.slice(0, Math.max(cut, 16));
      for (const [offset, value] of changes) if (offset < bytes.length) bytes[offset] = value;
      return bytes;
    });
  fc.assert(fc.property(fc.oneof(any, corrupted), read), { seed: SEED, numRuns: 3000 });
});

Deno.test("Attributes.whole is true only if the lengths fit the bytes", () => {
  const whole = Uint8Array.of(5, 0, 1, 0x80, 9, 0, 0, 0, 4, 0, 2, 0);
  const attributes = new Attributes(whole, 0);
  deepStrictEqual([attributes.whole, attributes.types, attributes.u8(1), attributes.u32(1)], [
    true,
    [1, 2],
    9,
    undefined,
  ]);
  strictEqual(new Attributes(whole.subarray(0, 10), 0).whole, false);
  strictEqual(new Attributes(Uint8Array.of(3, 0, 1, 0), 0).whole, false);
  strictEqual(new Attributes(new Uint8Array(), 0).whole, true);
  match(messageTypeName(99), /99/);
});
