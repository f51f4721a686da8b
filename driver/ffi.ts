/** Requests the permission to open native libraries, and creates the error when one cannot be opened. */

/**
 * Requests the FFI permission; on a terminal, Deno asks the user. Permission for a single path is not enough: with it,
 * Deno neither finds system libraries by name nor allows pointers.
 *
 * @param library Name of the library for the error message.
 * @throws {Deno.errors.NotCapable} when FFI is not allowed without restriction.
 */
export function requestFfi(library: string): void {
  const { state, partial } = Deno.permissions.requestSync({ name: "ffi" });
  if (state !== "granted") {
    throw new Deno.errors.NotCapable(
      `Cannot open ${library}: FFI is not allowed: run deno with --allow-ffi, not --allow-ffi=PATH`,
    );
  }
  if (partial) {
    throw new Deno.errors.NotCapable(
      `Cannot open ${library}: with --deny-ffi=PATH, deno finds no system library: run it without`,
    );
  }
}

/** Creates the error of a library that cannot be opened, from an error that `Deno.dlopen` has thrown. */
export function libraryError(library: string, error: unknown, remedy?: string): Error {
  const reason = libraryErrorReason(error);
  const message = `Cannot open ${library}: ${reason}${remedy === undefined ? "" : `: ${remedy}`}`;
  return new Deno.errors.NotSupported(message, { cause: error });
}

/** Returns the system's message, without Deno's prefix. */
export function libraryErrorReason(error: unknown): string {
  return (error as Error).message.trim().replace(
    /^(Could not open library: |Failed to register symbol \w+: )+/,
    "",
  );
}
