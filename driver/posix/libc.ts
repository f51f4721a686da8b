/** C library functions that Linux, macOS and FreeBSD share, for inclusion in the symbol table of each system. */

import type { Errors } from "./errno.ts";

/**
 * Functions with the same prototype on all three systems.
 *
 * Deno runs only on 64-bit systems: int has 32 bits; long, size_t and pointers have 64. Results of type ssize_t are
 * declared as i32, because an i64 would arrive as a bigint and every call here transfers less than 2 GiB. The argument
 * nfds_t is declared as 64 bits, as on Linux; the BSDs read the lower 32 bits of the same register.
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
  pollNonblocking: { name: "poll", parameters: ["buffer", "usize", "i32"], result: "i32", nonblocking: true },
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

// Specification: fcntl.h, the same on Linux, macOS and FreeBSD.
const F_SETFD = 2;
const F_SETFL = 4;
const FD_CLOEXEC = 1;

/** The C library of one system, as far as all three systems share it. */
export interface Posix extends Errors {
  /** Functions of {@linkcode POSIX_SYMBOLS}. */
  readonly functions: Deno.DynamicLibrary<typeof POSIX_SYMBOLS>["symbols"];
  /**
   * Returns the error number of this thread's last failed call. Valid only in the expression right after a synchronous
   * call, never after a nonblocking one.
   */
  errno(): number;
  /** `int fcntl(int fd, int command, ... argument)`; the calling convention of the last argument varies. */
  fcntl(fd: number, command: number, argument: number): number;
  /** Flag for non-blocking descriptors (fcntl.h). */
  readonly O_NONBLOCK: number;
}

/** Makes a descriptor non-blocking and close-on-exec. @throws {DriverError} when fcntl(2) fails. */
export function setNonBlocking(posix: Posix, fd: number): void {
  for (const [command, argument] of [[F_SETFD, FD_CLOEXEC], [F_SETFL, posix.O_NONBLOCK]] as const) {
    // Failures are reported, since a blocking descriptor could block the thread forever.
    if (posix.fcntl(fd, command, argument) < 0) {
      throw posix.systemError("make a descriptor non-blocking", "fcntl", posix.errno());
    }
  }
}

/** Encodes text as a C string: UTF-8 with a terminating zero. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${text}\0`);
}
