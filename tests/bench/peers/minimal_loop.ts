/**
 * The least that a relay in Deno can do: poll, read and write through FFI, as `relay.c` does, without Warren's loop.
 *
 *     minimal_loop.ts DEVICE DEVICE
 *
 * The event loop gets a turn every 8 ms, so that signals are handled. What the other device refuses is lost.
 */

import { setImmediate } from "node:timers";

// Specification: fcntl.h, linux/if_tun.h, poll.h
const O_RDWR = 0x2;
const O_NONBLOCK = 0x800;
const TUNSETIFF = 0x4004_54can;
const IFREQ_LENGTH = 40;
const IFR_FLAGS = 16;
const IFF_TUN_NO_PI = 0x1001;
const POLLIN = 0x001;

// Implementation
/** As many as Warren's batch. */
const DRAIN = 64;
const TURN_INTERVAL = 8;

const { symbols: { open, ioctl, poll, read, write } } = Deno.dlopen("libc.so.6", {
  // int open(const char *path, int flags, ... /* mode_t mode */);
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  // int ioctl(int fd, unsigned long request, ... /* void *argument */);
  ioctl: { parameters: ["i32", "usize", "buffer"], result: "i32" },
  // int poll(struct pollfd *fds, nfds_t nfds, int timeout);
  poll: { parameters: ["buffer", "usize", "i32"], result: "i32" },
  // ssize_t read(int fd, void *buf, size_t count);
  read: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  // ssize_t write(int fd, const void *buf, size_t count);
  write: { parameters: ["i32", "buffer", "usize"], result: "i32" },
});

function openDevice(name: string): number {
  const text = new TextEncoder();
  const fd = open(text.encode("/dev/net/tun\0"), O_RDWR | O_NONBLOCK, 0);
  const request = new Uint8Array(IFREQ_LENGTH);
  text.encodeInto(name, request);
  new DataView(request.buffer).setUint16(IFR_FLAGS, IFF_TUN_NO_PI, true);
  if (fd < 0 || ioctl(fd, TUNSETIFF, request) < 0) throw new Error(`Cannot open device "${name}"`);
  return fd;
}

const packet = new Uint8Array(65_535);
const MAX_LENGTH = BigInt(packet.length);
const LENGTHS = Array.from({ length: packet.length + 1 }, (_, length) => BigInt(length));

function drain(from: number, to: number): void {
  for (let i = 0; i < DRAIN; i++) {
    const length = read(from, packet, MAX_LENGTH);
    if (length <= 0) return;
    write(to, packet, LENGTHS[length]!);
  }
}

const [first, second] = Deno.args.map(openDevice) as [number, number];
/** Two of struct pollfd { int fd; short events; short revents; }. */
const descriptors = Int32Array.of(first, POLLIN, second, POLLIN);

for (;;) {
  const end = performance.now() + TURN_INTERVAL;
  for (let left = TURN_INTERVAL; left > 0; left = end - performance.now()) {
    if (poll(descriptors, 2n, Math.ceil(left)) <= 0) continue;
    if (descriptors[1]! >>> 16 !== 0) drain(first, second);
    if (descriptors[3]! >>> 16 !== 0) drain(second, first);
  }
  await new Promise((resolve) => setImmediate(resolve));
}
