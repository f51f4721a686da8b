/** Calls the C library of Linux (glibc or musl), which is opened on first use. */

import { libraryErrorReason, requestFfi } from "../ffi.ts";
import { type Posix, POSIX_SYMBOLS } from "../posix/libc.ts";
import { errnoName, systemError } from "./errno.ts";
import { O_NONBLOCK } from "./fcntl.ts";

const SYMBOLS = {
  ...POSIX_SYMBOLS,
  // int open(const char *path, int flags, ... /* mode_t mode */);
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  // int fcntl(int fd, int command, ... /* int argument */);
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int ioctl(int fd, unsigned long request, ... /* void *argument */);
  ioctl: { parameters: ["i32", "usize", "buffer"], result: "i32" },
  // int ioctl(int fd, unsigned long request, ... /* unsigned long argument */);
  ioctlNumber: { name: "ioctl", parameters: ["i32", "usize", "usize"], result: "i32" },
  // void *mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
  mmap: { parameters: ["pointer", "usize", "i32", "i32", "i32", "usize"], result: "pointer" },
  // int munmap(void *addr, size_t length);
  munmap: { parameters: ["pointer", "usize"], result: "i32" },
  // long syscall(long number, ...); io_uring_setup(2): u32 entries, struct io_uring_params *p
  ioUringSetup: { name: "syscall", parameters: ["usize", "u32", "buffer"], result: "i32" },
  // long syscall(long number, ...); io_uring_register(2): int fd, unsigned opcode, void *arg, unsigned nr_args
  ioUringRegister: { name: "syscall", parameters: ["usize", "i32", "u32", "buffer", "u32"], result: "i32" },
  // long syscall(long number, ...); io_uring_enter(2): int fd, unsigned to_submit, unsigned min_complete,
  //   unsigned flags, sigset_t *sig
  ioUringEnter: {
    name: "syscall",
    parameters: ["usize", "i32", "u32", "u32", "u32", "usize"],
    result: "i32",
  },
  // int recvmmsg(int fd, struct mmsghdr *msgvec, unsigned int vlen, int flags, struct timespec *timeout);
  recvmmsg: { parameters: ["i32", "buffer", "u32", "i32", "pointer"], result: "i32" },
  // int sendmmsg(int fd, struct mmsghdr *msgvec, unsigned int vlen, int flags);
  sendmmsg: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32" },
  // int getsockopt(int fd, int level, int optname, void *optval, socklen_t *optlen);
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  // int flock(int fd, int operation);
  flock: { parameters: ["i32", "i32"], result: "i32" },
  // int ftruncate(int fd, off_t length);
  ftruncate: { parameters: ["i32", "usize"], result: "i32" },
  // int unlink(const char *pathname);
  unlink: { parameters: ["buffer"], result: "i32" },
  // int mkdir(const char *pathname, mode_t mode);
  mkdir: { parameters: ["buffer", "u32"], result: "i32" },
  // ssize_t readlink(const char *pathname, char *buf, size_t bufsiz);
  readlink: { parameters: ["buffer", "buffer", "usize"], result: "i32" },
  // int statx(int dirfd, const char *pathname, int flags, unsigned int mask, struct statx *statxbuf);
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" },
  // DIR *opendir(const char *name);
  opendir: { parameters: ["buffer"], result: "pointer" },
  // struct dirent *readdir(DIR *dirp);
  readdir: { parameters: ["pointer"], result: "pointer" },
  // int closedir(DIR *dirp);
  closedir: { parameters: ["pointer"], result: "i32" },
  // char *getenv(const char *name);
  getenv: { parameters: ["buffer"], result: "pointer" },
  // uid_t geteuid(void);
  geteuid: { parameters: [], result: "u32" },
  // int *__errno_location(void);
  __errno_location: { parameters: [], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

// Implementation
// The soname of glibc, then those of musl, which include the processor's name.
const SONAMES = [
  "libc.so.6",
  "libc.musl-x86_64.so.1",
  "libc.musl-aarch64.so.1",
];

/** C functions that Warren calls. */
export type Libc = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

let opened: { symbols: Libc; errno: Int32Array } | undefined;

function load(): { symbols: Libc; errno: Int32Array } {
  requestFfi("the C library");
  const failures: unknown[] = [];
  for (const soname of SONAMES) {
    try {
      const { symbols } = Deno.dlopen(soname, SYMBOLS);
      // The location is per thread and never moves (errno(3)).
      const location = symbols.__errno_location()!;
      return { symbols, errno: new Int32Array(Deno.UnsafePointerView.getArrayBuffer(location, 4)) };
    } catch (error) {
      failures.push(error);
    }
  }
  throw new Deno.errors.NotSupported(
    `Cannot open the C library: ${failures.map(libraryErrorReason).join("; ")}: install glibc or musl`,
    { cause: new AggregateError(failures) },
  );
}

/**
 * Returns the functions of the C library, which the first call opens.
 *
 * @throws {Deno.errors.NotCapable} without `--allow-ffi`.
 * @throws {Deno.errors.NotSupported} when neither glibc nor musl is installed.
 */
export function libc(): Libc {
  return (opened ??= load()).symbols;
}

/**
 * Returns the error number of this thread's last failed call. Valid only in the expression that follows a synchronous
 * call, and never after a nonblocking call, which runs on a different thread.
 */
export function errno(): number {
  return opened!.errno[0]!;
}

/** Returns the C functions and constants that all POSIX systems share. */
export function posix(): Posix {
  const functions = libc();
  return { functions, errno, errnoName, systemError, fcntl: functions.fcntl, O_NONBLOCK };
}
