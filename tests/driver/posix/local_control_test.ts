/** Control messages for local addresses as bytes, sent and received, of each system. */

import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { DARWIN_LOCAL_CONTROL, FREEBSD_LOCAL_CONTROL } from "../../../driver/bsd/local_control.ts";
import { LOCAL_CONTROL } from "../../../driver/linux/local_control.ts";
import { type LocalControl, LocalControls } from "../../../driver/posix/local_control.ts";
import { Endpoint, isFromLocal } from "../../../driver/udp_socket.ts";
import { type Packet, PacketPool } from "../../../lib/core/mod.ts";

const IPV4 = "c0000202";
const IPV6 = "20010db8000000000000000000000002";
const LINK_LOCAL = "fe800000000000000000000000000002";
const INDEX = "07000000";
const NONE = "00".repeat(4);
/** Only 4 bytes of an IPv4 endpoint count. */
const UNTOUCHED = "a5".repeat(16);

/** Control message of a received datagram, local address in its endpoint, and control message of the reply. */
const CASES: [string, LocalControl, 4 | 6, received: string, local: string, sent: string][] = [
  [
    "Linux",
    LOCAL_CONTROL,
    4,
    // struct in_pktinfo: an interface, the address of this machine, the one in the header.
    "1c00000000000000" + "00000000" + "08000000" + INDEX + IPV4 + "c00002ff" + NONE,
    IPV4 + UNTOUCHED,
    "1c00000000000000" + "00000000" + "08000000" + NONE + IPV4 + NONE + NONE,
  ],
  [
    "Linux",
    LOCAL_CONTROL,
    6,
    "2400000000000000" + "29000000" + "32000000" + IPV6 + INDEX + NONE,
    IPV6 + NONE,
    "2400000000000000" + "29000000" + "32000000" + IPV6 + NONE + NONE,
  ],
  [
    "Linux, link-local",
    LOCAL_CONTROL,
    6,
    "2400000000000000" + "29000000" + "32000000" + LINK_LOCAL + INDEX + NONE,
    LINK_LOCAL + INDEX,
    "2400000000000000" + "29000000" + "32000000" + LINK_LOCAL + INDEX + NONE,
  ],
  [
    "macOS",
    DARWIN_LOCAL_CONTROL,
    4,
    "18000000" + "00000000" + "1a000000" + INDEX + NONE + IPV4,
    IPV4 + UNTOUCHED,
    "18000000" + "00000000" + "1a000000" + NONE + IPV4 + NONE,
  ],
  [
    "macOS",
    DARWIN_LOCAL_CONTROL,
    6,
    "20000000" + "29000000" + "2e000000" + IPV6 + INDEX,
    IPV6 + NONE,
    "20000000" + "29000000" + "2e000000" + IPV6 + NONE,
  ],
  [
    "FreeBSD",
    FREEBSD_LOCAL_CONTROL,
    4,
    "14000000" + "00000000" + "07000000" + NONE + IPV4 + NONE,
    IPV4 + UNTOUCHED,
    "14000000" + "00000000" + "07000000" + NONE + IPV4 + NONE,
  ],
  [
    "FreeBSD",
    FREEBSD_LOCAL_CONTROL,
    6,
    "24000000" + "29000000" + "2e000000" + NONE + LINK_LOCAL + INDEX + NONE,
    LINK_LOCAL + INDEX,
    "24000000" + "29000000" + "2e000000" + NONE + LINK_LOCAL + INDEX + NONE,
  ],
];

for (const [system, control, family, received, local, sent] of CASES) {
  Deno.test(`LocalControls of ${system} read and write the local address of IPv${family}`, () => {
    const packet = take();
    const controls = new LocalControls(2, control, family);
    strictEqual(controls.space, received.length / 2);
    put(controls, 1, received);
    controls.read(1, controls.space, packet);
    strictEqual(localOf(packet), local);
    strictEqual(isFromLocal(packet, family), true);
    const outgoing = new LocalControls(2, control, family);
    strictEqual(outgoing.write(1, packet), true);
    strictEqual(bytesOf(outgoing, 1), sent);
  });

  Deno.test(`LocalControls of ${system} take nothing from another message, or from half of one (IPv${family})`, () => {
    const controls = new LocalControls(1, control, family);
    put(controls, 0, received);
    const packet = take();
    for (const length of [0, 8, control.layout.data + control[family].size - 1]) {
      controls.read(0, length, packet);
      strictEqual(localOf(packet), "00".repeat(20), `${length} bytes`);
      packet.bytes.fill(0xa5, packet.slotEnd);
    }
    for (const at of [control.layout.level, control.layout.type]) {
      put(controls, 0, received);
      controls.view.setUint32(at, 99, true);
      controls.read(0, controls.space, packet);
      deepStrictEqual([localOf(packet), isFromLocal(packet, family)], ["00".repeat(20), false]);
      strictEqual(controls.write(0, packet), false);
    }
  });
}

function take(): Packet {
  const pool = new PacketPool({ small: 1, large: 0 });
  pool.bytes.fill(0xa5);
  return pool.take(1)!;
}

function localOf({ bytes, slotEnd }: Packet): string {
  return bytes.subarray(slotEnd + Endpoint.Local, slotEnd + Endpoint.Size).toHex();
}

function bytesOf({ view, space }: LocalControls, datagram: number): string {
  return new Uint8Array(view.buffer, datagram * space, space).toHex();
}

function put({ view, space }: LocalControls, datagram: number, hex: string): void {
  new Uint8Array(view.buffer).set(Uint8Array.fromHex(hex), datagram * space);
}
