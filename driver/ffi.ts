/** Permission for native libraries, and the errors of opening them. */

/**
 * Requests the FFI permission, on a terminal with Deno's prompt. A permission for a single path does not suffice: with
 * it, Deno finds no system library by name and allows no pointers.
 *
 * @param library Name of the library, for the message.
 * @throws {Deno.errors.NotCapable} when the permission is not granted.
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

/** Converts an error of `Deno.dlopen`. */
export function libraryError(library: string, error: unknown, remedy?: string): Error {
  const reason = libraryErrorReason(error);
  const message = `Cannot open ${library}: ${reason}${remedy === undefined ? "" : `: ${remedy}`}`;
  return new Deno.errors.NotSupported(message, { cause: error });
}

/** Reason given by the system, without Deno's prefix. */
export function libraryErrorReason(error: unknown): string {
  return (error as Error).message.trim().replace(
    /^(Could not open library: |Failed to register symbol \w+: )+/,
    "",
  );
}
