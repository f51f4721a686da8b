/** Sealed ends: keys from options and flags, roles, and `--far` below them. */

import assert from "node:assert/strict";
import { openCryptography } from "../../../driver/crypto/mod.ts";
import { MemoryDevice } from "../../../driver/memory.ts";
import { Ipv4 } from "../../../lib/wire/ipv4.ts";
import { openTunnel, sealed, type Tunnel, udp, type VpnEnd } from "../../../runtime/mod.ts";
import { type EndOpener, WITHOUT_TUNNEL } from "../../../runtime/transport/end_opener.ts";
import { placeBelow } from "../../../runtime/vpn/vpn.ts";
import { PacketPool } from "../../../lib/core/mod.ts";
import { QUIET } from "../../kit/tunnel.ts";

// Loads the library that the tests share.
await openCryptography();

const KEY = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/** An IPv4 packet between two inner addresses. */
function packetOf(src: number, dst: number): Uint8Array {
  const packet = new PacketPool().from(Uint8Array.of(1, 2, 3))!;
  Ipv4.encode(packet, { src, dst, protocol: 253 });
  return packet.data.slice();
}

interface Side {
  readonly tunnel: Tunnel;
  readonly system: Tunnel;
}

async function openSide(far: EndOpener): Promise<Side> {
  const [device, outside] = MemoryDevice.pair();
  const tunnel = await openTunnel({ device, far, ...QUIET });
  tunnel.run().catch(() => {});
  return { tunnel, system: await openTunnel({ device: outside, ...QUIET }) };
}

async function closeAll(...sides: Side[]): Promise<void> {
  for (const { tunnel, system } of sides) {
    tunnel.close();
    system.close();
    await Promise.allSettled([tunnel.closed, system.closed]);
  }
}

/** Sends a packet from one side, and returns what the other side's system gets. */
async function carry(from: Side, to: Side, bytes: Uint8Array): Promise<Uint8Array> {
  from.system.run().catch(() => {});
  from.system.send(bytes);
  const reader = to.system.readable.getReader();
  const { value } = await reader.read();
  return value!;
}

Deno.test("sealed() joins a side that connects and one that listens, with peers by name", async () => {
  const [one, other] = MemoryDevice.pair({ payload: "any" });
  Object.defineProperty(other, "listens", { value: true });
  const peers = [{ name: "laptop", allowed: ["10.9.0.2"] }, { name: "phone", allowed: ["10.9.0.3"] }];
  const client = await openSide(sealed({ key: KEY, name: "laptop", over: one }));
  const server = await openSide(sealed({ key: KEY, peers, over: other }));
  const bytes = packetOf(0x0a090002, 0x0a090001);
  assert.deepEqual(await carry(client, server, bytes), bytes);
  assert.equal(server.tunnel.stats.inbound.packetsOut, 1);
  await closeAll(client, server);
});

Deno.test("sealed() takes its key from a flag of the script, and asks for it", async () => {
  const open = async (flags: Record<string, string>) => {
    const [over] = MemoryDevice.pair({ payload: "any" });
    const opener = sealed({ key: { flag: "key" }, name: { flag: "as" }, over });
    using end = await opener({ ...WITHOUT_TUNNEL, flags }) as VpnEnd;
    return end.name;
  };
  assert.equal(await open({ key: KEY }), "sealed over memory");
  assert.equal(await open({ key: KEY, as: "laptop" }), "sealed over memory");
  await assert.rejects(open({}), /^TypeError: Cannot open a sealed end: --key is missing: give both sides/);
  await assert.rejects(open({ key: "short" }), (error: Error) => {
    assert.match(error.message, /key must be 32 random bytes/);
    assert.doesNotMatch(error.message, /short/);
    return true;
  });
});

Deno.test("sealed() refuses unknown options when it opens, and closes the end below", async () => {
  const [over, partner] = MemoryDevice.pair({ payload: "any" });
  await assert.rejects(
    Promise.resolve(sealed({ key: KEY, over, kye: 1 } as never)()),
    /there is no option "kye"/,
  );
  assert.match(String(partner.failure), /was closed/);
  assert.throws(
    () => sealed(undefined as never),
    /^TypeError: Cannot open a sealed end: options must be an object/,
  );
  assert.throws(() => sealed({ key: KEY } as never), /^TypeError: Cannot open a VPN end: over is missing$/);
});

Deno.test("placeBelow() puts the URL of --far below a VPN end, and in place of another far end", () => {
  assert.equal(placeBelow(udp({ listen: 0 }), "udp://192.0.2.1:4500"), "udp://192.0.2.1:4500");
  assert.equal(placeBelow(undefined, "udp://192.0.2.1:4500"), "udp://192.0.2.1:4500");
  const far = sealed({ key: KEY, over: udp({ listen: 4500 }) });
  assert.throws(() => placeBelow(far, "udp:/"), SyntaxError);
  const placed = placeBelow(far, "tun:x") as EndOpener;
  assert.equal(typeof placed, "function");
  // It still is a VPN end, so that another flag would replace the same end.
  assert.equal(typeof placeBelow(placed, "udp://192.0.2.1:4500"), "function");
});
