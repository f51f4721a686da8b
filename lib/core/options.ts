/** Options by their names: what a mistyped one would leave unsaid is an error. */

/** The names of all options, whose completeness the type holds; `"needed"` for those that have no default. */
export type OptionNames<Options> = { readonly [Name in keyof Required<Options>]: "needed" | "optional" };

/**
 * Looks at the names that an object of options has.
 *
 * @param attempt What the options are for, behind "Cannot".
 * @throws {TypeError} for an option that there is not, and one that is missing.
 */
export function checkNames<Options>(attempt: string, options: Options, names: OptionNames<Options>): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(`Cannot ${attempt}: ${String(options)} is no object of options`);
  }
  for (const name of Object.keys(options)) {
    if (Object.hasOwn(names, name)) continue;
    throw new TypeError(
      `Cannot ${attempt}: there is no option "${name}": ${Object.keys(names).join(", ")} are`,
    );
  }
  for (const [name, kind] of Object.entries(names)) {
    if (kind === "needed" && (options as Record<string, unknown>)[name] === undefined) {
      throw new TypeError(`Cannot ${attempt}: ${name} is missing`);
    }
  }
}
