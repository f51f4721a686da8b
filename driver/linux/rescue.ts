/** Undoes a device's changes from the watchdog thread, when the thread that owns the device hangs. */

/**
 * Undoes the changes in journals, newest first, removes the files and ends the process. A journal that cannot be read
 * is left for the next start.
 *
 * The watchdog thread runs the source text of this function, so the function is self-contained: it opens the C library
 * itself and declares its own constants.
 *
 * @param paths The {@linkcode Journal.sharedPath} of each journal.
 */
export function rescue(paths: Uint8Array[], status: number): void {
  const symbols = {
    // int open(const char *path, int flags, ... /* mode_t mode */);
    open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
    // ssize_t read(int fd, void *buf, size_t count);
    read: { parameters: ["i32", "buffer", "usize"], result: "i32" },
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
  const O_RDONLY = 0;
  const [NLMSG_FLAGS, NLM_F_ACK] = [6, 4];
  for (const soname of ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"]) {
    let libc;
    try {
      libc = Deno.dlopen(soname, symbols).symbols;
    } catch {
      // This C library is not installed.
      continue;
    }
    for (const path of paths) {
      const file = path[0] === 0 ? -1 : libc.open(path as BufferSource, O_RDONLY, 0);
      if (file < 0) continue;
      let text = "";
      const decoder = new TextDecoder();
      const chunk = new Uint8Array(65536);
      for (;;) {
        const length = libc.read(file, chunk, BigInt(chunk.length));
        if (length <= 0) break;
        text += decoder.decode(chunk.subarray(0, length), { stream: true });
      }
      const undos: (Uint8Array<ArrayBuffer> | undefined)[] = [];
      try {
        // The first line is the header, and the text after the last line feed is incomplete.
        for (const line of text.split("\n").slice(1, -1)) {
          const { undo, forget } = JSON.parse(line) as { undo?: string; forget?: number };
          if (undo !== undefined) undos.push(Uint8Array.fromHex(undo));
          else if (forget !== undefined) undos[forget] = undefined;
        }
      } catch {
        // A corrupt journal is left for the next start, which reports it.
        continue;
      }
      const socket = libc.socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
      // The kernel applies a message before `send` returns.
      for (const undo of undos.reverse()) {
        if (undo === undefined) continue;
        // Acknowledgements would not be read.
        undo[NLMSG_FLAGS]! &= ~NLM_F_ACK;
        libc.send(socket, undo, BigInt(undo.length), 0);
      }
      libc.unlink(path as BufferSource);
    }
    libc._exit(status);
  }
}
