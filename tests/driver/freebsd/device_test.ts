/**
 * A TUN device of FreeBSD over functions of the test, which record their arguments and order. Needs --allow-ffi for
 * addresses of buffers.
 */

import assert from "node:assert/strict";
import type { Bsd } from "../../../driver/bsd/bsd.ts";
import { openFreeBsdDevice } from "../../../driver/freebsd/device.ts";
import { Errno } from "../../../driver/freebsd/errno.ts";
import { FREEBSD, type FreeBsd } from "../../../driver/freebsd/libc.ts";
import { checkDeviceOptions, type DeviceOptions } from "../../../driver/options.ts";
import { PacketBatch } from "../../../lib/core/mod.ts";
import { numbered } from "../../conformance/end.ts";
import { TestHost } from "../../kit/host.ts";

/** Descriptor of the device; sockets have higher ones. */
const TUN = 5;

/** A FreeBSD where every call succeeds, except for one. */
class FakeFreeBsd {
  readonly calls: string[] = [];
  readonly #refused: string;
  #errno = 0;
  #next = TUN;
  /** True if the interface exists. */
  #present: boolean;

  constructor(refused = "", present = false) {
    this.#refused = refused;
    this.#present = present;
  }

  /** Records a call. */
  #call(call: string, result: number, errno: number = Errno.EPERM): number {
    this.calls.push(call);
    if (call !== this.#refused) return result;
    this.#errno = errno;
    return -1;
  }

  readonly load = (): FreeBsd => {
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
    const functions = {
      open: (path: Uint8Array) => {
        this.#present = true;
        return this.#call(`open ${text(path)}`, TUN, Errno.EBUSY);
      },
      close: (fd: number) => this.#call(`close ${fd}`, 0),
      socket: (family: number) => this.#call(`socket ${family}`, ++this.#next),
      if_nametoindex: () => this.#present ? 9 : 0,
      writeFrom: (_: number, message: Uint8Array) => this.#call(`route ${message[3]}`, message.length),
      readInto: () => -1,
      writev: () => this.#call("writev", 28),
    };
    return {
      ...FREEBSD,
      functions: functions as unknown as FreeBsd["functions"],
      errno: () => this.#errno,
      fcntl: (fd, command, argument) => this.#call(`fcntl ${fd} ${command} ${argument}`, 0),
      ioctl: (_: number, request: bigint, argument: Parameters<Bsd["ioctl"]>[2]) => {
        const number = request.toString(16);
        if (number === "4020745d") argument.set(new TextEncoder().encode("tun3"));
        if (number === "c0206933") argument.set([0xdc, 5], 16);
        return this.#call(`ioctl ${number}`, 0);
      },
    };
  };

  open(options: DeviceOptions) {
    return openFreeBsdDevice(checkDeviceOptions(options), this.load);
  }

  /** Returns the calls, without those for sockets of queries. */
  get made(): string[] {
    return this.calls.splice(0).filter((call) =>
      !/^(socket|fcntl|close ([6-9]|\d\d)$|ioctl c0206)/.test(call)
    );
  }
}

Deno.test("openFreeBsdDevice() sets the header, mode, addresses and routes, and destroys the interface on close", () => {
  const system = new FakeFreeBsd();
  const device = system.open({ mtu: 1400, address: ["10.9.0.1/24", "fd00::1/64"], route: "10.1.0.0/16" });
  assert.equal(device.name, "tun3");
  assert.deepEqual(system.calls.slice(0, 3), ["open /dev/tun", "fcntl 5 2 1", "fcntl 5 4 4"]);
  assert.deepEqual(system.made, [
    "open /dev/tun",
    "ioctl 4020745d",
    "ioctl 80047460",
    "ioctl 8004745e",
    "ioctl 80206934",
    "ioctl 8044692b",
    "ioctl 8088691b",
    // It was down.
    "ioctl 80206910",
    "route 1",
  ]);
  const host = new TestHost();
  device.attach(host);
  const batch = new PacketBatch();
  batch.push(numbered(host.pool, 1));
  assert.equal(device.write(batch), 1);
  device.close();
  device.close();
  // FreeBSD does not destroy an open interface.
  assert.deepEqual(system.made, ["writev", "route 2", "close 5", "ioctl 80206979"]);
  assert.equal(host.pool.taken, 0);
});

Deno.test("openFreeBsdDevice() undoes its changes when the system refuses a later one", () => {
  const system = new FakeFreeBsd("ioctl 8044692b");
  assert.throws(() => system.open({ name: "tun3", address: "10.9.0.1/24" }), {
    message: 'Cannot add address 10.9.0.1/24 to "tun3": EPERM (1): run as root',
  });
  assert.deepEqual(system.made.slice(-3), ["ioctl 8044692b", "close 5", "ioctl 80206979"]);
});

Deno.test("openFreeBsdDevice() keeps an interface that existed before", () => {
  const system = new FakeFreeBsd("", true);
  system.open({ name: "tun3", address: "10.9.0.1/24" }).close();
  assert.deepEqual(system.made.at(-1), "close 5");
  const refusing = new FakeFreeBsd("ioctl 8044692b", true);
  assert.throws(() => refusing.open({ name: "tun3", address: "10.9.0.1/24" }));
  assert.deepEqual(refusing.made.slice(-2), ["ioctl 8044692b", "close 5"]);
});

Deno.test("openFreeBsdDevice() names the remedy when the system refuses", () => {
  assert.throws(() => new FakeFreeBsd("open /dev/tun7").open({ name: "tun7" }), {
    message: 'Cannot open "/dev/tun7": EBUSY (16): another program has this device open',
  });
  assert.throws(() => new FakeFreeBsd().open({ name: "utun7" }), Deno.errors.NotSupported);
});
