/** The permission for native libraries, and why one did not open. */

/**
 * Asks for the permission to use FFI, on a terminal by Deno's prompt. All of it: a grant of one library's path keeps
 * Deno from finding the system's libraries by their names, and its pointers from use.
 *
 * @param library The library that is about to be opened, for the message.
 * @throws {Deno.errors.NotCapable} when it is not granted.
 */
export function requestFfi(library: string): void {
  const { state, partial } = Deno.permissions.requestSync({ name: "ffi" });
  if (state !== "granted") {
    throw new Deno.errors.NotCapable(
      `Cannot open ${library}: deno has no permission for FFI: run it with --allow-ffi, not --allow-ffi=PATH`,
    );
  }
  if (partial) {
    throw new Deno.errors.NotCapable(
      `Cannot open ${library}: --deny-ffi=PATH keeps deno from finding the system's libraries: run it without`,
    );
  }
}

/** Makes an error of ours from the one that `Deno.dlopen` threw for a library. */
export function libraryError(library: string, error: unknown, remedy?: string): Error {
  const reason = libraryErrorReason(error);
  const message = `Cannot open ${library}: ${reason}${remedy === undefined ? "" : `: ${remedy}`}`;
  return new Deno.errors.NotSupported(message, { cause: error });
}

/** The reason that the system gave, without Deno's words in front of it. */
export function libraryErrorReason(error: unknown): string {
  return (error as Error).message.trim().replace(
    /^(Could not open library: |Failed to register symbol \w+: )+/,
    "",
  );
}
