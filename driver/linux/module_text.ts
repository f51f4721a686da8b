/** Reads module files in a thread whose only permission is --allow-ffi. */

/**
 * Reads a file as text.
 *
 * A worker runs the source text of this function before any module is loaded, so the function is self-contained: it
 * opens the C library itself and declares its own constants.
 *
 * @throws {Error} when the file cannot be read.
 */
export function readModuleText(path: string): string {
  const symbols = {
    // int open(const char *path, int flags, ... /* mode_t mode */);
    open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
    // ssize_t read(int fd, void *buf, size_t count);
    read: { parameters: ["i32", "buffer", "usize"], result: "i32" },
    // int close(int fd);
    close: { parameters: ["i32"], result: "i32" },
  } as const;
  const [O_RDONLY, O_CLOEXEC, CHUNK] = [0, 0o2000000, 65_536];
  for (const soname of ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"]) {
    let libc;
    try {
      libc = Deno.dlopen(soname, symbols).symbols;
    } catch {
      // This C library is not installed.
      continue;
    }
    const fd = libc.open(new TextEncoder().encode(`${path}\0`), O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) break;
    const decoder = new TextDecoder();
    const chunk = new Uint8Array(CHUNK);
    let text = "";
    for (let length; (length = libc.read(fd, chunk, BigInt(CHUNK))) > 0;) {
      text += decoder.decode(chunk.subarray(0, length), { stream: true });
    }
    libc.close(fd);
    return text + decoder.decode();
  }
  throw new Error(`Cannot read "${path}": the C library cannot open it`);
}
