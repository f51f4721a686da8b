/** Puts a device back from another thread, when the one that it belongs to hangs. */

/**
 * Sends undo messages to the kernel, removes the journal, whose path with a zero byte comes first, and ends the
 * process. Its text is what runs, in the watchdog's thread: it
 * uses nothing from outside of itself, so it opens the C library anew and says its constants itself.
 */
export function rescue([journal, ...messages]: Uint8Array[], status: number): void {
  const symbols = {
    // int socket(int domain, int type, int protocol);
    socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
    // ssize_t send(int fd, const void *buf, size_t len, int flags);
    send: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
    // int unlink(const char *pathname);
    unlink: { parameters: ["buffer"], result: "i32" },
    // void _exit(int status);
    _exit: { parameters: ["i32"], result: "void" },
  } as const;
  const [AF_NETLINK, SOCK_RAW, NETLINK_ROUTE] = [16, 3, 0];
  for (const soname of ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"]) {
    try {
      const libc = Deno.dlopen(soname, symbols).symbols;
      const fd = libc.socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
      // rtnetlink does what a message asks for before send returns.
      for (const message of messages) libc.send(fd, message as BufferSource, BigInt(message.length), 0);
      libc.unlink(journal as BufferSource);
      libc._exit(status);
    } catch {
      // The other C library.
    }
  }
}
