/** Synthetic addresses: the same for a name, another one for another, and back. */

import assert from "node:assert/strict";
import { FakeIp } from "@warren/tunnel/dns";
import { encodePacket } from "../../kit/packet_text.ts";
import { Random } from "../../../lib/random.ts";
import { packetOf } from "../_packets.ts";

Deno.test("FakeIp gives a name the same address of each family, and tells the name by it", () => {
  const fakeIp = new FakeIp({ ipv6: "fd09:fa4e::/96" });
  assert.equal(fakeIp.addressOf("www.example.com"), "198.18.0.1");
  assert.equal(fakeIp.addressOf("mail.example.com"), "198.18.0.2");
  assert.equal(fakeIp.addressOf("WWW.example.com."), "198.18.0.1");
  assert.equal(fakeIp.addressOf("mail.example.com", 6), "fd09:fa4e::2");
  assert.equal(fakeIp.nameOf("fd09:fa4e::1"), "www.example.com");
  assert.equal(fakeIp.nameOf("198.18.0.2"), "mail.example.com");
  for (const other of ["198.18.0.0", "198.18.0.3", "198.20.0.1", "fd09:fa4e::", "fd09:fa4f::1"]) {
    assert.equal(fakeIp.nameOf(other), undefined, other);
  }
  assert.equal(new FakeIp().addressOf("www.example.com", 6), undefined);
  assert.equal(fakeIp.size, 2);
});

Deno.test("FakeIp tells the names of a packet's source and destination", () => {
  const fakeIp = new FakeIp({ ipv6: "fd09:fa4e::/96" });
  fakeIp.addressOf("www.example.com");
  const at = (text: string) => packetOf(encodePacket(text));
  assert.equal(fakeIp.destinationOf(at("tcp 10.9.0.1:5000 > 198.18.0.1:443 S")), "www.example.com");
  assert.equal(fakeIp.sourceOf(at("tcp 198.18.0.1:443 > 10.9.0.1:5000 SA")), "www.example.com");
  assert.equal(fakeIp.destinationOf(at("udp [fd09::1]:5000 > [fd09:fa4e::1]:443")), "www.example.com");
  assert.equal(fakeIp.sourceOf(at("udp [fd09:fa4e::1]:443 > [fd09::1]:5000")), "www.example.com");
  assert.equal(fakeIp.destinationOf(at("tcp 10.9.0.1:5000 > 198.18.0.2:443 S")), undefined);
  assert.equal(fakeIp.sourceOf(packetOf([0x45, 0])), undefined);
});

Deno.test("FakeIp gives no addresses to exceptions and to names that nobody connects to", () => {
  const fakeIp = new FakeIp({ except: ["real.example"] });
  for (
    const name of ["a.real.example", "1.0.18.198.in-addr.arpa", "localhost", "x.localhost", "printer.local"]
  ) {
    assert.equal(fakeIp.addressOf(name), undefined, name);
  }
  assert.equal(fakeIp.addressOf("notlocal"), "198.18.0.1");
});

Deno.test("FakeIp takes an exception alone as a name", () => {
  assert.equal(new FakeIp({ except: "example" }).addressOf("www.example"), undefined);
});

Deno.test("FakeIp takes the address of the name that was not used for longest, as a slow list says", () => {
  const random = new Random(18);
  const fakeIp = new FakeIp({ ipv4: "10.200.0.0/28", ipv6: "fd00::/96" });
  assert.equal(fakeIp.capacity, 14);
  const used: { name: string; address: string }[] = [];
  for (let i = 0; i < 20_000; i++) {
    const name = `n${random.below(20)}`;
    if (random.below(3) === 0) {
      const address = `10.200.0.${random.below(17)}`;
      const at = used.findIndex((entry) => entry.address === address);
      assert.equal(fakeIp.nameOf(address), used[at]?.name);
      if (at >= 0) used.push(...used.splice(at, 1));
      continue;
    }
    const at = used.findIndex((entry) => entry.name === name);
    const expected = at >= 0
      ? used.splice(at, 1)[0]!.address
      : used.length < 14
      ? `10.200.0.${used.length + 1}`
      : used.shift()!.address;
    assert.equal(fakeIp.addressOf(name), expected);
    used.push({ name, address: expected });
  }
});

Deno.test("FakeIp.restore() takes over names, addresses and their order", () => {
  const first = new FakeIp({ ipv4: "10.200.0.0/29", ipv6: "fd00::/96" });
  for (const name of ["a", "b", "c", "d", "e", "f", "g", "b"]) first.addressOf(name);
  const saved = JSON.parse(JSON.stringify(first.save()));
  const second = new FakeIp({ ipv4: "10.200.0.0/29", ipv6: "fd00::/96" });
  second.restore(saved);
  for (const name of ["c", "new", "newer", "b"]) {
    assert.equal(second.addressOf(name, 6), first.addressOf(name, 6), name);
  }
  assert.deepEqual(second.save(), first.save());
  const wrong = [
    undefined,
    {},
    { ...saved, prefixes: ["10.0.0.0/29", null] },
    { ...saved, names: [["a", 9]] },
    { ...saved, names: [["a", 0], ["a", 1]] },
    { ...saved, names: [["a", 0], ["b", 0]] },
    { ...saved, names: [[7, 0]] },
    { ...saved, names: [null] },
    ...["", ".", "a..b", "A", "a.", "x".repeat(64)].map((name) => ({ ...saved, names: [[name, 0]] })),
  ];
  for (const state of wrong) assert.throws(() => second.restore(state), TypeError);
  assert.deepEqual(second.save(), first.save());
});

Deno.test("FakeIp refuses options that make no sense", () => {
  assert.throws(() => new FakeIp({ ipv4: "198.18.0.0" }), SyntaxError);
  assert.throws(() => new FakeIp({ ipv4: "fd00::/96" }), TypeError);
  assert.throws(() => new FakeIp({ ipv6: "10.0.0.0/8" }), TypeError);
  assert.throws(() => new FakeIp({ ipv6: "fd00::/64" }), RangeError);
  assert.throws(() => new FakeIp({ ipv4: "10.0.0.0/31" }), RangeError);
  assert.throws(() => new FakeIp({ capacity: 0 }), RangeError);
  assert.throws(() => new FakeIp({ ttl: -1 }), RangeError);
  assert.throws(() => new FakeIp({ prefix: "10.0.0.0/8" } as object), /there is no option "prefix"/);
  assert.throws(() => new FakeIp().addressOf("a..b"), SyntaxError);
});
