/** Far ends as URLs. Needs no permission: nothing is opened. */

import { ok, rejects, strictEqual, throws } from "node:assert/strict";
import * as fc from "fast-check";
import { MemoryDevice } from "../../../driver/memory.ts";
import { parseFarUrl } from "../../../runtime/transport/far_url.ts";
import { openFarEnd } from "../../../runtime/transport/mod.ts";
import { device } from "../../../runtime/transport/device.ts";
import { udp } from "../../../runtime/transport/udp.ts";
import { websocket } from "../../../runtime/transport/websocket.ts";

const GOOD = [
  "udp://192.0.2.1:4500",
  "udp://192.0.2.1:4500/",
  "udp://[2001:db8::1]:4500",
  "udp://vpn.example:4500",
  "udp://vpn.example.:4500",
  "udp://192.0.2.1:4500?listen=4500",
  "udp://192.0.2.1:4500?listen=127.0.0.1:4500",
  "udp://[2001:db8::1]:4500?listen=[::]:4500",
  "udp://[2001:db8::1]:4500?listen=4500",
  "udp://vpn.example:4500?listen=[::]:0",
  "udp://0.0.0.0:4500?listen",
  "udp://[::]:0?listen",
  "udp://192.0.2.1:4500?interface=eth0",
  "udp://192.0.2.1:4500?listen=4500&interface=eth0",
  "udp://192.0.2.1:4500?interface=eth0&listen=127.0.0.1:4500",
  "udp://0.0.0.0:4500?listen&interface=Ethernet%202",
  "udp://192.0.2.1:4500?mtu=9000",
  "udp://0.0.0.0:4500?listen&payload=any&mtu=65507",
  "udp://192.0.2.1:4500?payload=ip",
  "ws://192.0.2.1:8080/",
  "ws://vpn.example",
  "wss://vpn.example/tunnel?token=1",
  "wss://[2001:db8::1]/tunnel",
  "ws://0.0.0.0:8080/tunnel?listen",
  "ws://[::]:8080?listen",
  "ws://[::]:8080?listen&payload=any",
  "wss://vpn.example/tunnel?payload=any&token=1",
  "tun:tun1",
  "tun:tun1?offload=no",
  "tun:tun1?uring=no&offload=no",
  "tun:tun%d",
];

const BAD: [url: string, said: RegExp][] = [
  ["", /it is no URL of a far end: write/],
  ["192.0.2.1:4500", /it is no URL of a far end/],
  ["tcp://192.0.2.1:4500", /it is no URL of a far end/],
  ["udp:192.0.2.1:4500", /it is no URL of a far end/],
  [" udp://192.0.2.1:4500", /it is no URL of a far end/],
  ["udp://192.0.2.1:4500#x", /it is no URL of a far end/],
  ["udp://192.0.2.1", /it has no port: write 192\.0\.2\.1:4500/],
  ["udp://192.0.2.1:", /it has no port/],
  ["udp://192.0.2.1:0", /its port is 0/],
  ["udp://192.0.2.1:65536", /its port "65536" is not a number up to 65535/],
  ["udp://192.0.2.1:4500a", /its port "4500a"/],
  ["udp://:4500", /it has no host/],
  ["udp://2001:db8::1:4500", /its host has colons: write an IPv6 address in brackets/],
  ["udp://[fe80::1%eth0]:4500", /its host "fe80::1%eth0" has an interface: write the address alone/],
  ["udp://[2001:db8::g]:4500", /no IPv6 address/],
  ["udp://[192.0.2.1]:4500", /no IPv6 address/],
  ["udp://192.0.2.256:4500", /no IPv4 address/],
  ["udp://192.0.2:4500", /no IPv4 address/],
  ["udp://0x7f000001:4500", /no IPv4 address/],
  ["udp://-a:4500", /no address and no name/],
  ["udp://a..b:4500", /no address and no name/],
  ["udp://user@host:4500", /no address and no name/],
  ["udp://192.0.2.1:4500/path", /it has a path, "\/path"/],
  ["udp://192.0.2.1:4500?", /is not understood/],
  ["udp://192.0.2.1:4500?listen=", /listen= has no port: write \?listen=4500, or \?listen when/],
  ["udp://192.0.2.1:4500?interface", /interface has no name/],
  ["udp://192.0.2.1:4500?interface=", /interface has no name: write \?interface=eth0/],
  ["udp://192.0.2.1:4500?MTU=9000", /"MTU=9000" in "\?MTU=9000" is not understood: write "\?listen"/],
  ["udp://192.0.2.1:4500?mtu=65508", /its mtu must be an integer from 1 to 65507, got "65508": write one/],
  ["udp://192.0.2.1:4500?mtu=0", /its mtu must be .* got "0"/],
  ["udp://192.0.2.1:4500?mtu", /its mtu must be .* got ""/],
  ["udp://192.0.2.1:4500?mtu=", /its mtu must be .* got ""/],
  ["udp://192.0.2.1:4500?mtu=1e3", /its mtu must be .* got "1e3"/],
  ["udp://192.0.2.1:4500?mtu=1400&mtu=1400", /mtu is in .* twice/],
  ["udp://192.0.2.1:4500?payload=all", /its payload must be ip or any, got "all": write \?payload=any/],
  ["udp://192.0.2.1:4500?payload", /its payload must be ip or any, got ""/],
  ["ws://vpn.example/?payload=all", /its payload must be ip or any, got "all": write \?payload=any/],
  ["ws://0.0.0.0:80/?payload&listen", /its payload must be ip or any, got ""/],
  ["ws://vpn.example/?payload=ip&payload=any", /payload is in .* twice/],
  ["udp://192.0.2.1:4500?interface=%zz", /is no percent-encoded text: write a space as %20/],
  ["udp://192.0.2.1:4500?listen=1&listen=2", /listen is in "\?listen=1&listen=2" twice/],
  ["udp://192.0.2.1:4500&interface=eth0", /has "&" in it: write "\?" before the first option, "&" between/],
  ["udp://192.0.2.1:4500?listen=1?mtu=1400", /is not understood: write "&" between options, "\?" before/],
  ["udp://192.0.2.1.:4500", /no IPv4 address/],
  ["udp://vpn.example..:4500", /no address and no name/],
  [`udp://${"a.".repeat(128)}:4500`, /no address and no name/],
  ["udp://[::ffff:192.0.2.1]:4500", /::ffff:192\.0\.2\.1 is an IPv4 address: write 192\.0\.2\.1:4500/],
  ["udp://0.0.0.0:4500", /no one machine's address/],
  ["udp://[::]:4500", /no one machine's address/],
  ["udp://239.1.1.1:4500", /no one machine's address/],
  ["udp://192.0.2.1:4500?interface=a%00b", /is no percent-encoded text/],
  ["udp://192.0.2.1:4500?listen=1&", /"" in .* is not understood/],
  ["udp://192.0.2.1:4500?listen=[::]:4500", /one address is IPv4 and one is IPv6/],
  ["udp://192.0.2.1:4500?listen=here:4500", /"here" is no address of this machine/],
  ["udp://vpn.example:4500?listen", /"vpn.example" is no address of this machine/],
  ["udp://4500?listen", /it has no address: write 0\.0\.0\.0:4500/],
  ["udp://?listen", /it has no address/],
  ["ws://", /it has no host/],
  ["ws://user:secret@host/", /it has a user name/],
  ["ws://host:99999/", /its port "99999"/],
  ["ws://host/?listen", /it has no port/],
  [
    "ws://0.0.0.0:80/?listen=1",
    /"\?listen=1" is not understood: write "\?listen" alone, or with "&payload=any"/,
  ],
  ["ws://0.0.0.0:80/?listen&path=/x", /"\?listen&path=\/x" is not understood/],
  ["ws://0.0.0.0:80/?payload=any&listen&listen", /is not understood/],
  ["ws://host:80/?listen", /no address of this machine/],
  ["wss://0.0.0.0:443/?listen", /no certificate: write ws:\/\/ behind a proxy/],
  ["tun:a?offload=maybe", /write "\?offload=no" or "\?uring=no"/],
  ["tun:a?offload=no?uring=no", /is not understood/],
  ["tun:a?uring=no&uring=no", /twice/],
  ["tun:", /a name has no/],
  ["tun:a/b", /a name has no/],
  ["tun:" + "x".repeat(128), /at most (15|127)/],
  ["tun://tun1", /it is no URL of a far end/],
];

Deno.test("parseFarUrl() takes every form of a far end", () => {
  for (const url of GOOD) parseFarUrl(url);
});

Deno.test("parseFarUrl() says what is wrong and what to do", () => {
  for (const [url, said] of BAD) {
    throws(() => parseFarUrl(url), (error) => {
      ok(error instanceof SyntaxError, url);
      ok(error.message.startsWith(`Cannot parse far end ${JSON.stringify(url)}: `), error.message);
      ok(said.test(error.message), error.message);
      return true;
    }, url);
  }
});

Deno.test("udp() names the option that is of a wrong type", () => {
  const wrong: [options: object, message: RegExp][] = [
    [
      { peer: 4500 },
      /^Cannot open a UDP transport: peer must be text such as "192\.0\.2\.1:4500", got 4500$/,
    ],
    [{ peer: null }, /peer must be text .* got null$/],
    [{ listen: true }, /listen must be a port, or text .* got true$/],
    [{ listen: {} }, /listen must be a port, or text .* got {}$/],
    [{ listen: 4500, interface: 2 }, /interface must be text such as "eth0", got 2$/],
    [{ listen: Symbol("x") }, /got Symbol\(x\)$/],
  ];
  for (const [options, message] of wrong) {
    throws(() => udp(options), (error) => error instanceof TypeError && message.test(error.message));
  }
});

Deno.test("parseFarUrl() throws nothing but SyntaxError, whatever it gets", () => {
  const parts = [
    "udp",
    "ws",
    "wss",
    "tun",
    ":",
    "//",
    "[",
    "]",
    "::1",
    "192.0.2.1",
    "a.b",
    "@",
    "?listen",
    "=",
    "/",
    "80",
    "%",
    "#",
  ];
  const text = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.array(fc.constantFrom(...parts)).map((list) => list.join("")),
  );
  fc.assert(
    fc.property(text, (url) => {
      try {
        parseFarUrl(url);
      } catch (error) {
        ok(error instanceof SyntaxError, String(error));
      }
    }),
    { numRuns: 2000, seed: 1 },
  );
});

Deno.test("openFarEnd() rejects text that does not parse, and passes on what is open", async () => {
  await rejects(openFarEnd("nonsense"), SyntaxError);
  strictEqual(await openFarEnd(undefined), undefined);
  const [near] = MemoryDevice.pair();
  strictEqual(await openFarEnd(near), near);
  strictEqual(await openFarEnd(() => near), near);
  strictEqual(await openFarEnd(() => Promise.resolve(near)), near);
});

Deno.test("udp() refuses options that make no sense", () => {
  throws(() => udp({}), TypeError);
  throws(() => udp({ peer: "192.0.2.1" }), {
    name: "SyntaxError",
    message: /^Cannot parse peer "192.0.2.1": it has no port/,
  });
  throws(() => udp({ peer: "192.0.2.1:0" }), SyntaxError);
  throws(() => udp({ listen: "somewhere" }), SyntaxError);
  throws(() => udp({ listen: 65_536 }), RangeError);
  throws(() => udp({ listen: -1 }), RangeError);
  throws(() => udp({ listen: 4500.5 }), RangeError);
  throws(() => udp({ peer: "192.0.2.1:1", listen: "[::]:1" }), TypeError);
  throws(() => udp({ listen: 1, payload: "all" as "any" }), TypeError);
  throws(() => udp({ listen: 1, mtu: 0 }), RangeError);
  throws(() => udp({ listen: 1, mtu: 65_508 }), RangeError);
  throws(() => udp({ listen: 1, interface: "" }), TypeError);
  throws(() => udp({ listen: 1, interface: "a\0b" }), TypeError);
});

Deno.test("websocket() refuses options that make no sense", () => {
  throws(() => websocket({}), TypeError);
  throws(() => websocket({ url: "ws://a/", listen: 1 }), TypeError);
  throws(() => websocket({ url: "http://a/" }), SyntaxError);
  throws(() => websocket({ url: "ws://a/#b" }), SyntaxError);
  throws(() => websocket({ url: "ws://u@a/" }), SyntaxError);
  throws(() => websocket({ listen: "a:b:c" }), SyntaxError);
  throws(() => websocket({ listen: 1, queueLength: 1.5 }), RangeError);
  throws(() => websocket({ url: "ws://a/", retryAfter: -1 }), RangeError);
  throws(() => websocket({ url: "ws://a/", retryAfter: NaN }), RangeError);
});

Deno.test("device() refuses options that make no sense", () => {
  throws(() => device({ name: "a b" }), TypeError);
  throws(() => device({ address: "10.9.0.1" }), SyntaxError);
});

Deno.test(
  "udp() fails at once without --allow-ffi, and udp() with a name and websocket() without --allow-net",
  { permissions: { net: false, ffi: false } },
  async () => {
    const noFfi = { name: "NotCapable", message: /no permission for FFI: run it with --allow-ffi/ };
    await rejects(udp({ peer: "127.0.0.1:4500" })(), noFfi);
    await rejects(udp({ listen: "127.0.0.1:4500" })(), noFfi);
    await rejects(udp({ peer: "localhost:4500" })(), {
      name: "NotCapable",
      message: /^Cannot use localhost: it needs net access/,
    });
    await rejects(websocket({ url: "ws://127.0.0.1:4500/" })(), Deno.errors.NotCapable);
    await rejects(websocket({ listen: "127.0.0.1:4500" })(), Deno.errors.NotCapable);
  },
);
