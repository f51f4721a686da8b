/** What the C libraries of Linux, macOS and FreeBSD have in common: each system's symbol table holds it, too. */

import type { SystemError } from "./errno.ts";

/**
 * The functions that are called in the same way everywhere.
 *
 * On the 64-bit systems that Deno runs on, int is 32 bits, long, size_t and pointers 64. Results of type ssize_t are
 * declared i32: every call here transfers less than 2 GiB, and an i32 is no bigint. nfds_t has 64 bits on Linux
 * alone; as an argument in a register it is the same.
 */
export const POSIX_SYMBOLS = {
  // int close(int fd);
  close: { parameters: ["i32"], result: "i32" },
  // ssize_t read(int fd, void *buf, size_t count);
  read: { parameters: ["i32", "usize", "usize"], result: "i32" },
  // ssize_t read(int fd, void *buf, size_t count);
  readInto: { name: "read", parameters: ["i32", "buffer", "usize"], result: "i32" },
  // ssize_t write(int fd, const void *buf, size_t count);
  write: { parameters: ["i32", "usize", "usize"], result: "i32" },
  // ssize_t write(int fd, const void *buf, size_t count);
  writeFrom: { name: "write", parameters: ["i32", "buffer", "usize"], result: "i32" },
  // ssize_t readv(int fd, const struct iovec *iov, int iovcnt);
  readv: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  // ssize_t writev(int fd, const struct iovec *iov, int iovcnt);
  writev: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  // int pipe(int fds[2]);
  pipe: { parameters: ["buffer"], result: "i32" },
  // int poll(struct pollfd *fds, nfds_t nfds, int timeout);
  poll: { parameters: ["buffer", "usize", "i32"], result: "i32" },
  // int poll(struct pollfd *fds, nfds_t nfds, int timeout);
  pollElsewhere: { name: "poll", parameters: ["buffer", "usize", "i32"], result: "i32", nonblocking: true },
  // int execv(const char *path, char *const argv[]);
  execv: { parameters: ["buffer", "buffer"], result: "i32" },
  // int socket(int domain, int type, int protocol);
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int bind(int fd, const struct sockaddr *addr, socklen_t addrlen);
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  // int getsockname(int fd, struct sockaddr *addr, socklen_t *addrlen);
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  // int setsockopt(int fd, int level, int optname, const void *optval, socklen_t optlen);
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  // ssize_t sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *addr, socklen_t addrlen);
  sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "i32" },
  // ssize_t recvfrom(int fd, void *buf, size_t len, int flags, struct sockaddr *addr, socklen_t *addrlen);
  recvfrom: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "buffer"], result: "i32" },
  // int sigaction(int signum, const struct sigaction *act, struct sigaction *oldact);
  sigaction: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

// Specification: fcntl.h; these numbers are the same on Linux, macOS and FreeBSD.
const F_SETFD = 2;
const F_SETFL = 4;
const FD_CLOEXEC = 1;

/** A system's C library, as far as it is every system's. */
export interface Posix {
  /** The functions. */
  readonly functions: Deno.DynamicLibrary<typeof POSIX_SYMBOLS>["symbols"];
  /**
   * The error number of this thread's last failed call. It holds only in the very next expression after a
   * synchronous call; never after one that runs elsewhere.
   */
  errno(): number;
  /** The error for it. */
  readonly systemError: SystemError;
  /** `int fcntl(int fd, int command, ... argument)`, whose last argument is passed in ways that differ. */
  fcntl(fd: number, command: number, argument: number): number;
  /** fcntl.h: the flag of a descriptor that never waits. */
  readonly O_NONBLOCK: number;
}

/** Has a descriptor never wait, and closed in programs that this process starts. */
export function guard(posix: Posix, fd: number): void {
  for (const [command, argument] of [[F_SETFD, FD_CLOEXEC], [F_SETFL, posix.O_NONBLOCK]] as const) {
    // A descriptor that waits would hold the thread for good.
    if (posix.fcntl(fd, command, argument) < 0) {
      throw posix.systemError("have a descriptor never wait", "fcntl", posix.errno());
    }
  }
}

/** Text as C takes it: UTF-8 with a zero byte at the end. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${text}\0`);
}
