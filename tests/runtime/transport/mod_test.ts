/** Far ends as URLs. Needs no permission: nothing is opened. */

import { ok, rejects, strictEqual, throws } from "node:assert/strict";
import * as fc from "fast-check";
import { MemoryDevice } from "../../../driver/memory.ts";
import { parseFarUrl } from "../../../runtime/transport/far_url.ts";
import { openerOf } from "../../../runtime/transport/far_url.ts";
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
  ["", /it is not the URL of a far end: write/],
  ["192.0.2.1:4500", /it is not the URL of a far end/],
  ["tcp://192.0.2.1:4500", /it is not the URL of a far end/],
  ["udp:192.0.2.1:4500", /it is not the URL of a far end/],
  [" udp://192.0.2.1:4500", /it is not the URL of a far end/],
  ["udp://192.0.2.1:4500#x", /it is not the URL of a far end/],
  ["udp://192.0.2.1", /it has no port: write 192\.0\.2\.1:4500/],
  ["udp://192.0.2.1:", /it has no port/],
  ["udp://192.0.2.1:0", /its port is 0/],
  ["udp://192.0.2.1:65536", /its port must be an integer from 0 to 65535, got "65536"/],
  ["udp://192.0.2.1:4500a", /its port must be an integer from 0 to 65535, got "4500a"/],
  ["udp://:4500", /it has no host/],
  ["udp://2001:db8::1:4500", /its host has colons: write an IPv6 address in brackets/],
  ["udp://[fe80::1%eth0]:4500", /its host "fe80::1%eth0" has an interface: write the address alone/],
  ["udp://[2001:db8::g]:4500", /its host must be an IPv6 address, got /],
  ["udp://[192.0.2.1]:4500", /its host must be an IPv6 address, got /],
  ["udp://192.0.2.256:4500", /its host must be an IPv4 address, got /],
  ["udp://192.0.2:4500", /its host must be an IPv4 address, got /],
  ["udp://0x7f000001:4500", /its host must be an IPv4 address, got /],
  ["udp://-a:4500", /its host must be an address or a name, got /],
  ["udp://a..b:4500", /its host must be an address or a name, got /],
  ["udp://user@host:4500", /its host must be an address or a name, got /],
  ["udp://192.0.2.1:4500/path", /it has a path, "\/path"/],
  ["udp://192.0.2.1:4500?", /is not an option/],
  ["udp://192.0.2.1:4500?listen=", /listen= has no port: write \?listen=4500, or \?listen if/],
  ["udp://192.0.2.1:4500?interface", /interface has no name/],
  ["udp://192.0.2.1:4500?interface=", /interface has no name: write \?interface=eth0/],
  ["udp://192.0.2.1:4500?MTU=9000", /"MTU=9000" in "\?MTU=9000" is not an option: write "\?listen"/],
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
  ["udp://192.0.2.1:4500?interface=%zz", /is not percent-encoded: write a space as %20/],
  ["udp://192.0.2.1:4500?listen=1&listen=2", /listen is in "\?listen=1&listen=2" twice/],
  [
    "udp://192.0.2.1:4500&interface=eth0",
    /contains "&": write "\?" before the first option, "&" between options/,
  ],
  [
    "udp://192.0.2.1:4500?listen=1?mtu=1400",
    /is not an option: write "\?" before the first option, "&" between options/,
  ],
  ["udp://192.0.2.1.:4500", /its host must be an IPv4 address, got /],
  ["udp://vpn.example..:4500", /its host must be an address or a name, got /],
  [`udp://${"a.".repeat(128)}:4500`, /its host must be an address or a name, got /],
  ["udp://[::ffff:192.0.2.1]:4500", /::ffff:192\.0\.2\.1 is an IPv4 address: write 192\.0\.2\.1:4500/],
  ["udp://0.0.0.0:4500", /is not a unicast address/],
  ["udp://[::]:4500", /is not a unicast address/],
  ["udp://239.1.1.1:4500", /is not a unicast address/],
  ["udp://192.0.2.1:4500?interface=a%00b", /is not percent-encoded/],
  ["udp://192.0.2.1:4500?listen=1&", /"" in .* is not an option/],
  ["udp://192.0.2.1:4500?listen=[::]:4500", /one address is IPv4 and one is IPv6/],
  ["udp://192.0.2.1:4500?listen=here:4500", /its host must be an address, got "here"/],
  ["udp://vpn.example:4500?listen", /its host must be an address, got "vpn.example"/],
  ["udp://4500?listen", /it has no address: write 0\.0\.0\.0:4500/],
  ["udp://?listen", /it has no address/],
  ["ws://", /it has no host/],
  ["ws://user:secret@host/", /it has a user name/],
  ["ws://host:99999/", /its port must be an integer from 0 to 65535, got "99999"/],
  ["ws://host/?listen", /it has no port/],
  [
    "ws://0.0.0.0:80/?listen=1",
    /"\?listen=1" is not an option: write "\?listen" alone, or with "&payload=any"/,
  ],
  ["ws://0.0.0.0:80/?listen&path=/x", /"\?listen&path=\/x" is not an option/],
  ["ws://0.0.0.0:80/?payload=any&listen&listen", /is not an option/],
  ["ws://host:80/?listen", /its host must be an address, got "host"/],
  ["wss://0.0.0.0:443/?listen", /listening with TLS is not supported: write ws:\/\/ and put a proxy/],
  ["tun:a?offload=maybe", /write "\?offload=no" or "\?uring=no"/],
  ["tun:a?offload=no?uring=no", /is not an option/],
  ["tun:a?uring=no&uring=no", /twice/],
  ["tun:", /name must not be empty/],
  ["tun:a/b", /name must not be empty/],
  ["tun:" + "x".repeat(128), /at most (15|127)/],
  ["tun://tun1", /it is not the URL of a far end/],
];

Deno.test("parseFarUrl() takes every form of a far end", () => {
  for (const url of GOOD) parseFarUrl(url);
});

Deno.test("parseFarUrl() throws with the reason and the remedy", () => {
  for (const [url, said] of BAD) {
    throws(() => parseFarUrl(url), (error) => {
      ok(error instanceof SyntaxError, url);
      ok(error.message.startsWith(`Cannot parse far end ${JSON.stringify(url)}: `), error.message);
      ok(said.test(error.message), error.message);
      return true;
    }, url);
  }
});

Deno.test("udp() names an option of the wrong type", () => {
  const wrong: [options: object, message: RegExp][] = [
    [{ peer: 4500 }, /^Cannot open a UDP transport: peer must be a string, got 4500$/],
    [{ peer: null }, /peer must be a string, got null$/],
    [{ listen: true }, /listen must be a port or text, got true$/],
    [{ listen: {} }, /listen must be a port or text, got an object$/],
    [{ listen: 4500, interface: 2 }, /interface must be a string, got 2$/],
    [{ listen: Symbol("x") }, /got a symbol$/],
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

Deno.test("openerOf() throws for text that does not parse, and openFarEnd() passes on what is open", async () => {
  throws(() => openerOf("nonsense"), SyntaxError);
  strictEqual(await openFarEnd(undefined), undefined);
  const [near] = MemoryDevice.pair();
  strictEqual(await openFarEnd(near), near);
  strictEqual(await openFarEnd(() => near), near);
  strictEqual(await openFarEnd(() => Promise.resolve(near)), near);
});

Deno.test("udp() refuses invalid options", () => {
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

Deno.test("websocket() refuses invalid options", () => {
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

Deno.test("device() refuses invalid options", () => {
  throws(() => device({ name: "a b" }), TypeError);
  throws(() => device({ address: "10.9.0.1" }), SyntaxError);
});

Deno.test(
  "udp() fails at once without --allow-ffi, and udp() with a name and websocket() without --allow-net",
  { permissions: { net: false, ffi: false } },
  async () => {
    const noFfi = { name: "NotCapable", message: /FFI is not allowed: run deno with --allow-ffi/ };
    await rejects(udp({ peer: "127.0.0.1:4500" })(), noFfi);
    await rejects(udp({ listen: "127.0.0.1:4500" })(), noFfi);
    await rejects(udp({ peer: "localhost:4500" })(), {
      name: "NotCapable",
      message: /^Cannot use localhost: it requires net access/,
    });
    await rejects(websocket({ url: "ws://127.0.0.1:4500/" })(), Deno.errors.NotCapable);
    await rejects(websocket({ listen: "127.0.0.1:4500" })(), Deno.errors.NotCapable);
  },
);
