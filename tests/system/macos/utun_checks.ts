/** Tests of utun devices and UDP sockets over a stand-in for libSystem, which utun_test.ts runs. */

import assert from "node:assert/strict";
import type { BsdDevice } from "../../../driver/bsd/device.ts";
import { openBsdUdpSocket } from "../../../driver/bsd/udp_socket.ts";
import { sockaddr } from "../../../driver/bsd/sockaddr.ts";
import { posix } from "../../../driver/linux/libc.ts";
import { openUtunDevice } from "../../../driver/macos/device.ts";
import { Errno } from "../../../driver/macos/errno.ts";
import { examine } from "../../../driver/macos/examine.ts";
import { darwin } from "../../../driver/macos/libsystem.ts";
import { type DeviceOptions, DriverError, portOf } from "../../../driver/mod.ts";
import { checkDeviceOptions } from "../../../driver/options.ts";
import { PollWaiter } from "../../../driver/posix/waiter.ts";
import { parseAddress } from "../../../lib/wire/address.ts";
import { type DeviceEvent, PacketBatch } from "../../../lib/core/mod.ts";
import icmpEcho from "../../../scripts/icmp_echo.ts";
import { openTunnel } from "../../../runtime/mod.ts";
import { UdpTransport } from "../../../runtime/transport/udp_transport.ts";
import {
  carryLengths,
  endConformance,
  type EndPair,
  numbered,
  pattern,
  receive,
} from "../../conformance/end.ts";
import { cable } from "../../kit/cable.ts";
import { EventFd } from "../../kit/event_fd.ts";
import { TestHost } from "../../kit/host.ts";
import { QUIET } from "../../kit/tunnel.ts";
import { loadStandIn } from "./stand_in.ts";
import { viewOf } from "../../../driver/native_memory.ts";

// Stays open, so it is opened outside the tests.
const standIn = loadStandIn();
darwin();
// The loop waits with the functions of this system.
posix();

function open(options: DeviceOptions = {}): BsdDevice {
  return openUtunDevice(checkDeviceOptions(options, "darwin"));
}

let pairs = 0;

/** The stand-in connects units 0 and 1, 2 and 3, ... up to 63. */
function openPair(mtu: number): EndPair {
  const unit = 2 * (pairs++ % 32);
  const [near, far] = [unit, unit + 1].map((number) => open({ name: `utun${number}`, mtu })) as [
    BsdDevice,
    BsdDevice,
  ];
  return { near, far, mtu, least: 20, failsWithPeer: false };
}

for (const mtu of [576, 1500]) endConformance(`utun of MTU ${mtu}`, () => openPair(mtu));

for (const host of ["127.0.0.1", "::1"]) {
  endConformance(`UdpTransport on macOS' sockets over ${host}`, (): EndPair => {
    const address = parseAddress(host);
    const sockets = [1, 2].map(() => openBsdUdpSocket(darwin(), { address }));
    const transports = sockets.map((socket, i) =>
      new UdpTransport(socket, {
        peer: [{ host, port: portOf(sockets[1 - i]!.local), family: address.family }],
      })
    );
    const [near, far] = cable(transports[0]!, transports[1]!);
    return { near, far, mtu: 1500, least: 20, failsWithPeer: false };
  });
}

Deno.test("PollWaiter waits with the functions of libSystem", async () => {
  using waiter = new PollWaiter(darwin());
  using event = new EventFd();
  waiter.add(event.fd, true, false);
  assert.equal(waiter.wait(1), false);
  const parked = waiter.park(Infinity);
  event.raise();
  assert.equal(await parked, true);
  event.lower();
  waiter.clear();
  waiter.add(event.fd, true, false);
  assert.equal(await waiter.park(1), false);
  await waiter.forget(event.fd);
});

Deno.test("utun carries packets of every length up to an MTU of 9000 and of 65535", async () => {
  for (const mtu of [9000, 65_535]) {
    const { near, far } = openPair(mtu);
    await carryLengths(near, far, mtu);
  }
});

Deno.test("utun writes a packet without headroom, IPv6 with its family, and drops packets that are not IP", async () => {
  const { near, far } = openPair(1500);
  const [nearHost, farHost] = [new TestHost(), new TestHost()];
  near.attach(nearHost);
  far.attach(farHost);
  const batch = new PacketBatch();
  const [first, none, six] = [pattern(40), pattern(40), pattern(40)];
  none[0] = 0x05;
  six[0] = 0x60;
  for (const bytes of [first, none, six]) {
    const packet = nearHost.pool.from(bytes)!;
    packet.prepend(packet.headroom);
    packet.length = bytes.length;
    packet.bytes.set(bytes, packet.offset);
    batch.push(packet);
  }
  assert.equal(near.write(batch), 3);
  assert.deepEqual(nearHost.dropped, { "neither IPv4 nor IPv6": 1 });
  assert.deepEqual(await receive(far, farHost, 2), [first, six]);
  near.close();
  far.close();
  assert.equal(nearHost.pool.taken, 0);
});

/** Removes blanks from hexadecimal digits. */
function golden(operation: string, ...parts: string[]): string {
  return `${operation} ${parts.join("").replaceAll(/[\s|]/g, "")}`;
}

/** Calls of the stand-in without queries. */
function told(): string[] {
  const questions = [
    "ioctl c0206911",
    "ioctl c0206933",
    "ioctl c0644e03",
    "connect",
    "setsockopt",
    "RTM_GET",
  ];
  return standIn.log().filter((line) => !questions.some((question) => line.startsWith(question)));
}

const ZEROS = (count: number) => "00".repeat(count);
/** The name of utun0 in 16 bytes. */
const NAME = `7574756e30 ${ZEROS(11)}`;
/** A struct rt_msghdr: its length, its type, its flags; then the pid, the sequence, ... and the metrics. */
const routeHeader = (length: number, type: number, flags: string, addresses: number) =>
  `${length.toString(16)}00 05 0${type} 00000000 ${flags} 0${addresses}000000 ${ZEROS(76)}`;
/** A struct sockaddr_dl of interface 100. */
const TO_UTUN0 = `14126400 ${ZEROS(16)}`;
const [UP_STATIC, UP_HOST_STATIC, UP_GATEWAY_STATIC] = ["01080000", "05080000", "03080000"];
const [ADD, DELETE] = [1, 2];

Deno.test("openUtunDevice() creates a utun by connecting to its control", () => {
  standIn.log();
  open({ name: "utun4" }).close();
  const asked = standIn.log();
  const control = new TextEncoder().encode("com.apple.net.utun_control").toHex();
  assert.deepEqual(asked.slice(0, 2), [
    golden("ioctl c0644e03", "00000000 |", control, ZEROS(70)),
    golden("connect", "20 20 0200 07000000 05000000", ZEROS(20)),
  ]);
  assert.ok(asked.includes("setsockopt 2 10 40000000"));
});

Deno.test("openUtunDevice() takes any unit for the default name, and reports it", () => {
  standIn.log();
  using first = open();
  using second = open({ name: "utun%d" });
  assert.deepEqual([first.name, second.name], ["utun0", "utun1"]);
  assert.deepEqual(
    standIn.log().filter((line) => line.startsWith("connect")),
    new Array(2).fill(golden("connect", "20 20 0200 07000000 00000000", ZEROS(20))),
  );
});

Deno.test("openUtunDevice() sets MTU and addresses in Darwin's structures, and adds the IPv4 prefix", () => {
  standIn.log();
  const device = open({ mtu: 1400, address: ["10.9.0.1/24", "fd00::1/64", "10.8.0.1/32"] });
  assert.equal(device.mtu, 1400);
  const address = (last: string) => `10020000 ${last} ${ZEROS(8)}`;
  const network = `${address("0a090000")} ${TO_UTUN0} ${address("ffffff00")}`;
  assert.deepEqual(told(), [
    golden("ioctl 80206934", NAME, "78050000", ZEROS(12)),
    golden("ioctl 8040691a", NAME, address("0a090001"), address("0a090001"), address("ffffff00")),
    golden(
      "ioctl 8080691a",
      NAME,
      `1c1e0000 00000000 fd00${ZEROS(13)}01 00000000 |`,
      `${ZEROS(28)} |`,
      `1c1e0000 00000000 ffffffffffffffff ${ZEROS(8)} 00000000 |`,
      `20000000 | ${ZEROS(16)} ffffffff ffffffff`,
    ),
    golden("ioctl 8040691a", NAME, address("0a080001"), address("0a080001"), address("ffffffff")),
    golden("RTM_ADD", routeHeader(144, ADD, UP_STATIC, 7), network),
  ]);
  device.close();
  assert.deepEqual(told(), [
    golden("RTM_DELETE", routeHeader(144, DELETE, UP_STATIC, 7), network),
    "closed 00",
  ]);
});

Deno.test("openUtunDevice() adds host routes, routes by next hops, and a default route as two halves; close() removes them", () => {
  standIn.log();
  const device = open({
    address: "10.9.0.1/24",
    route: ["192.0.2.7/32", "10.1.2.3/16 via 10.9.0.2", "default", "::/0"],
  });
  const address = (last: string) => `10020000 ${last} ${ZEROS(8)}`;
  const six = (first: string) => `1c1e0000 00000000 ${first} ${ZEROS(15)} 00000000`;
  const routes = (type: number) => [
    golden("", routeHeader(128, type, UP_HOST_STATIC, 3), address("c0000207"), TO_UTUN0),
    golden(
      "",
      routeHeader(140, type, UP_GATEWAY_STATIC, 7),
      address("0a010000"),
      address("0a090002"),
      address("ffff0000"),
    ),
    golden("", routeHeader(144, type, UP_STATIC, 7), address("00000000"), TO_UTUN0, address("80000000")),
    golden("", routeHeader(144, type, UP_STATIC, 7), address("80000000"), TO_UTUN0, address("80000000")),
    golden("", routeHeader(168, type, UP_STATIC, 7), six("00"), TO_UTUN0, six("80")),
    golden("", routeHeader(168, type, UP_STATIC, 7), six("80"), TO_UTUN0, six("80")),
  ];
  assert.deepEqual(told().slice(2), routes(ADD).map((line) => `RTM_ADD${line}`));
  device.close();
  const removed = told();
  assert.deepEqual(removed.slice(0, 6), routes(DELETE).reverse().map((line) => `RTM_DELETE${line}`));
  assert.equal(removed.at(-1), "closed 00");
});

Deno.test("openUtunDevice() undoes its changes when the system refuses a later one", () => {
  standIn.route(sockaddr(darwin(), parseAddress("10.2.0.0")), 16, 3);
  standIn.log();
  assert.throws(
    () => open({ address: "10.9.0.1/24", route: ["10.1.0.0/16", "10.2.0.0/16"] }),
    new DriverError(
      "Cannot add route 10.2.0.0/16: EEXIST (17): it exists through a different interface: remove that route, or choose a longer prefix",
      { operation: "RTM_ADD", code: "EEXIST", errno: 17 },
    ),
  );
  const operations = told().map((line) => line.replace(/ [0-9a-f]*$/, ""));
  const added = ["RTM_ADD", "RTM_ADD", "RTM_ADD"];
  assert.deepEqual(operations, ["ioctl 8040691a", ...added, "RTM_DELETE", "RTM_DELETE", "closed"]);
  assert.equal(standIn.open, 0);
});

Deno.test("openUtunDevice() refuses a next hop that is reached through a different interface", () => {
  standIn.route(sockaddr(darwin(), parseAddress("192.168.0.0")), 24, 3);
  assert.throws(() => open({ address: "10.9.0.1/24", route: "10.1.0.0/16 via 192.168.0.1" }), {
    message:
      "Cannot add route 10.1.0.0/16: ENETUNREACH (51): its next hop is reached through a different interface",
  });
  assert.equal(standIn.open, 0);
});

Deno.test("openUtunDevice() names the remedy when the system refuses", () => {
  standIn.fail("connect", Errno.EPERM);
  assert.throws(
    () => open(),
    new Deno.errors.PermissionDenied('Cannot open device "tun%d": EPERM (1): run with sudo'),
  );
  const device = open({ name: "utun3" });
  assert.throws(() => open({ name: "utun3" }), {
    code: "EBUSY",
    message:
      'Cannot open device "utun3": EBUSY (16): another program has this device open: choose another number, or "utun%d"',
  });
  device.close();
  standIn.fail("8040691a", Errno.EPERM);
  assert.throws(() => open({ address: "10.9.0.1/24" }), {
    name: "PermissionDenied",
    message: 'Cannot add address 10.9.0.1/24 to "utun0": EPERM (1): run with sudo',
  });
  assert.equal(standIn.open, 0);
});

Deno.test("openUtunDevice() refuses options that macOS does not support, before any call", () => {
  standIn.log();
  const refused: [DeviceOptions, string][] = [
    [{ name: "tun3" }, 'name must be utun0, utun1 and so on, or "utun%d", on macOS'],
    [{ rule: { table: 7 } }, "macOS has no policy rules"],
    [{ route: "10.0.0.0/8 table 7" }, "macOS has no routing tables that a route can choose"],
    [{ route: "10.0.0.0/8 metric 7" }, "macOS has no metrics of routes"],
  ];
  for (const [options, why] of refused) {
    const name = options.name ?? "tun%d";
    assert.throws(() => open(options), new Deno.errors.NotSupported(`Cannot open device "${name}": ${why}`));
  }
  assert.deepEqual(standIn.log(), []);
});

Deno.test("utun drops a packet that the system refuses, and keeps one for which there is no room", () => {
  using device = open();
  const host = new TestHost();
  device.attach(host);
  const batch = new PacketBatch();
  for (let i = 0; i < 3; i++) batch.push(numbered(host.pool, i));
  standIn.fail("write", Errno.ENOBUFS);
  assert.equal(device.write(batch), 3);
  assert.deepEqual(host.dropped, { "refused by the system: ENOBUFS": 1 });
  batch.push(numbered(host.pool, 3));
  standIn.fail("write", Errno.EAGAIN);
  assert.equal(device.write(batch), 0);
  assert.equal(batch.length, 1);
  assert.equal(device.failure, undefined);
  for (const packet of batch) host.pool.give(packet);
});

Deno.test("utun that is gone fails, and reports it", async () => {
  using device = open();
  const host = new TestHost();
  device.attach(host);
  const events = Array.fromAsync(device.events());
  for (const passing of [Errno.EAGAIN, Errno.EINTR, Errno.ENOBUFS]) {
    standIn.fail("read", passing);
    assert.equal(device.read(new PacketBatch()), 0);
    assert.equal(device.failure, undefined);
  }
  standIn.fail("read", 0);
  assert.equal(device.read(new PacketBatch()), 0);
  assert.deepEqual(
    device.failure,
    new Deno.errors.NotFound('Cannot read from "utun0": ENXIO (6): the device was removed'),
  );
  device.close();
  assert.deepEqual(await events, [{ kind: "gone", mtu: 1500 }]);
  assert.equal(host.pool.taken, 0);
});

/** Returns a struct if_msghdr of Darwin. */
function news(index: number, flags: number, mtu: number): Uint8Array<ArrayBuffer> {
  const message = new Uint8Array(112);
  const view = viewOf(message);
  view.setUint16(0, message.length, true);
  message.set([5, 14], 2);
  view.setInt32(8, flags, true);
  view.setUint16(12, index, true);
  view.setUint32(24, mtu, true);
  return message;
}

Deno.test("utun reports changes of its interface", async () => {
  using device = open();
  let hear = () => {};
  const watch = (_: number, readable: () => void) => {
    hear = readable;
    return () => {};
  };
  device.attach(Object.assign(new TestHost(), { watch }));
  const events: DeviceEvent[] = [];
  const reading = (async () => {
    for await (const event of device.events()) events.push(event);
  })();
  standIn.tell(news(100, 0x8051, 1400));
  standIn.tell(news(101, 0x8051, 1300));
  standIn.tell(news(100, 0x8050, 1400));
  standIn.tell(Uint8Array.of(1, 0, 5, 14));
  standIn.tell(news(100, 0x8051, 1400));
  hear();
  assert.equal(device.mtu, 1400);
  device.close();
  await reading;
  assert.deepEqual(events.map(({ kind, mtu }) => [kind, mtu]), [["mtu", 1400], ["down", 1400], ["up", 1400]]);
});

Deno.test("utun.statistics() returns the counters of the system", async () => {
  const { near, far } = openPair(1500);
  const [nearHost, farHost] = [new TestHost(), new TestHost()];
  near.attach(nearHost);
  far.attach(farHost);
  const batch = new PacketBatch();
  for (let i = 0; i < 7; i++) batch.push(numbered(nearHost.pool, i));
  near.write(batch);
  await receive(far, farHost, 7);
  const counted = { rxBytes: 1024, rxDropped: 4 + 2, txBytes: 2048, txDropped: 5 + 3 };
  assert.deepEqual((near as BsdDevice).statistics(), { rxPackets: 7, txPackets: 0, ...counted });
  assert.deepEqual((far as BsdDevice).statistics(), { rxPackets: 0, txPackets: 7, ...counted });
  near.close();
  far.close();
  assert.equal((near as BsdDevice).statistics(), undefined);
});

Deno.test("a script runs over a utun: the echo of scripts/icmp_echo.ts answers a ping", async () => {
  const far = open({ name: "utun1" });
  const host = new TestHost();
  far.attach(host);
  const device = open({ name: "utun0", address: icmpEcho.options.address! });
  const tunnel = await openTunnel({ ...QUIET, device });
  const running = icmpEcho.main(tunnel);
  const batch = new PacketBatch();
  batch.push(host.pool.from(echoRequest())!);
  far.write(batch);
  const [reply] = await receive(far, host, 1);
  // From 10.9.0.77 to 10.9.0.1, ICMP echo reply.
  assert.equal(reply!.subarray(12, 21).toHex(), "0a09004d0a09000100");
  tunnel.close();
  await running;
  await tunnel.closed;
  far.close();
  assert.equal(standIn.open, 0);
});

/** Echo request of 10.9.0.1 to 10.9.0.77 with valid checksums. */
function echoRequest(): Uint8Array {
  const header = "4500001c00010000400166910a0900010a09004d";
  return Uint8Array.fromHex(`${header}0800f7fd00010001`);
}

Deno.test("examine() checks the needs of a device", async () => {
  standIn.log();
  const checks = await examine();
  assert.deepEqual(checks.map(({ name }) => name), ["libSystem", "utun", "privileges"]);
  assert.equal(checks[0]!.state, darwin().functions.recvmsg_x === null ? "warn" : "ok");
  assert.deepEqual(checks[1], { name: "utun", state: "ok", text: "available" });
  assert.equal(checks[2]!.state, Deno.uid() === 0 ? "ok" : "fail");
  standIn.fail("socket", Errno.EPERM);
  assert.equal((await examine())[1]!.state, "fail");
  assert.equal(standIn.open, 0);
});

Deno.test("a closed device leaves nothing", () => {
  const device = open({ address: "10.9.0.1/24" });
  assert.equal(standIn.open, 2);
  device.close();
  device.close();
  assert.equal(standIn.open, 0);
});
