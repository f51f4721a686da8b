/** An eventfd(2): a descriptor that a test makes ready to be read when it likes. */

// Specification: sys/eventfd.h
const EFD_NONBLOCK = 0o4000;

// Opened for good, so not within a test.
const symbols = Deno.build.os !== "linux" ? undefined : Deno.dlopen("libc.so.6", {
  // int eventfd(unsigned int initval, int flags);
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  // ssize_t read(int fd, void *buf, size_t count);
  read: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  // ssize_t write(int fd, const void *buf, size_t count);
  write: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  // int close(int fd);
  close: { parameters: ["i32"], result: "i32" },
}).symbols;

/** A descriptor that can be written to at all times, and read when it is raised. */
export class EventFd implements Disposable {
  /** The descriptor. */
  readonly fd: number = symbols!.eventfd(0, EFD_NONBLOCK);

  /** It can be read from now on. */
  raise(): void {
    symbols!.write(this.fd, BigUint64Array.of(1n), 8n);
  }

  /** It can be read no longer. */
  lower(): void {
    symbols!.read(this.fd, new BigUint64Array(1), 8n);
  }

  /** Closes it; its number is free. */
  [Symbol.dispose](): void {
    symbols!.close(this.fd);
  }
}
