/** A script's own flags: declarations, and values from its command line. */

import { checkOption, checkOptions, gotValue, type OptionKinds } from "../../lib/core/options.ts";
import { UsageError } from "./failure.ts";

/** Flag with a value. A flag of type `list` is repeatable; its value is an array of texts. */
export interface ValueFlag<Type extends "string" | "number" | "list", Value> {
  /** Type of its value. */
  readonly type: Type;
  /** Description in `--help`. */
  readonly description?: string;
  /** Placeholder of its value in `--help`, such as `FILE`. @default {"TEXT"}, or `"N"` for a number */
  readonly value?: string;
  /** True if the script cannot run without it. @default {false} */
  readonly required?: boolean;
  /** Value if the flag is absent. @default {undefined}, or `[]` for a list */
  readonly default?: Value;
}

/** Flag without a value: `true` if it is present, `false` otherwise. */
export interface BooleanFlag {
  /** Type of its value. */
  readonly type: "boolean";
  /** Description in `--help`. */
  readonly description?: string;
}

/** Declaration of a script's own flag. `maxPeers` in the script is `--max-peers` on the command line. */
export type ScriptFlag =
  | ValueFlag<"string", string>
  | ValueFlag<"number", number>
  | ValueFlag<"list", readonly string[]>
  | BooleanFlag;

/** A script's own flags, by their names in the script. */
export type ScriptFlags = Readonly<Record<string, ScriptFlag>>;

/** Value of a flag. */
export type FlagValue<Flag extends ScriptFlag> = Flag extends { readonly type: "boolean" } ? boolean
  : Flag extends { readonly type: "list" } ? readonly string[]
  :
    | (Flag extends { readonly type: "number" } ? number : string)
    | (Flag extends { readonly required: true } | { readonly default: string | number } ? never : undefined);

/** Values of a script's own flags, by their names in the script. */
export type FlagValues<Flags extends ScriptFlags> = {
  readonly [Name in keyof Flags]: FlagValue<Flags[Name]>;
};

/** Part of a command line that is passed to the script's `main`. */
export interface ScriptArguments<Flags extends ScriptFlags = ScriptFlags> {
  /** Values of its own flags. */
  readonly flags: FlagValues<Flags>;
  /** Words after `--`. */
  readonly args: readonly string[];
}

/** {@linkcode ScriptArguments} for a direct call of a script's `main`; absent flags have their defaults. */
export interface GivenArguments<Flags extends ScriptFlags = ScriptFlags> {
  /** Values of its own flags. */
  readonly flags?: Partial<FlagValues<Flags>>;
  /** Words after `--`. @default {[]} */
  readonly args?: readonly string[];
}

const BOOLEAN_NAMES: OptionKinds<BooleanFlag> = { type: "text", description: "text" };
const VALUE_NAMES: OptionKinds<ValueFlag<"string", string>> = {
  ...BOOLEAN_NAMES,
  value: "text",
  required: "boolean",
  default: "any",
};
const TYPES: readonly string[] = ["string", "number", "boolean", "list"];

/** Returns the name of a flag on the command line. */
export function flagName(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/**
 * Checks the declarations of a script's own flags.
 *
 * @param taken Reserved names on the command line.
 * @throws {TypeError} for an invalid declaration or a reserved name.
 */
export function checkScriptFlags(flags: ScriptFlags, taken: readonly string[]): void {
  const names = new Set<string>();
  for (const [name, flag] of Object.entries(flags)) {
    const fail = (reason: string): never => {
      throw new TypeError(`Cannot declare flag "${name}": ${reason}`);
    };
    if (!/^[a-z][A-Za-z0-9]+$/.test(name)) {
      fail("its name must be at least two letters or digits, the first in lower case, such as maxPeers");
    }
    if (name in {}) fail("every object has a property of this name: choose another name");
    const written = flagName(name);
    if (taken.includes(written)) fail(`--${written} is a flag of every script: choose another name`);
    if (names.has(written)) fail(`another flag is --${written} as well: choose another name`);
    names.add(written);
    const attempt = `declare flag "${name}"`;
    checkOption(attempt, "type", flag?.type, TYPES);
    if (flag.type === "boolean") {
      checkOptions(attempt, flag, BOOLEAN_NAMES);
      continue;
    }
    checkOptions<object>(attempt, flag, VALUE_NAMES);
    if (flag.default === undefined) continue;
    if (flag.required) fail("a required flag must have no default");
    const fits = flag.type === "list"
      ? Array.isArray(flag.default) && flag.default.every((text) => typeof text === "string")
      : flag.type === "number"
      ? typeof flag.default === "number"
      : typeof flag.default === "string";
    if (!fits) fail(`default must be of type ${flag.type}, ${gotValue(flag.default)}`);
  }
}

/**
 * Reads the values of a script's own flags.
 *
 * @param given Returns the values of a flag on the command line, or `true` for a boolean flag.
 * @throws {UsageError} when a flag is missing, given twice, or has a value of the wrong type.
 */
export function readScriptFlags(
  flags: ScriptFlags,
  given: (flag: string) => readonly string[] | boolean | undefined,
): FlagValues<ScriptFlags> {
  const values = Object.entries(flags).map(([name, flag]) => {
    const written = flagName(name);
    const texts = given(written);
    if (flag.type === "boolean") return [name, texts === true];
    if (!Array.isArray(texts) || texts.length === 0) {
      if (!flag.required) return [name, defaultOf(flag)];
      const { description } = flag;
      throw new UsageError(`--${written} is missing${description === undefined ? "" : `: ${description}`}`);
    }
    if (texts.includes("")) throw new UsageError(`--${written} needs a value`);
    if (flag.type === "list") return [name, texts];
    if (texts.length > 1) throw new UsageError(`--${written} is given twice`);
    return [name, flag.type === "number" ? number(written, texts[0]!) : texts[0]!];
  });
  return Object.fromEntries(values);
}

/**
 * Fills in defaults for a direct call of a script's `main`.
 *
 * @throws {TypeError} when a required flag is missing.
 */
export function completeArguments<Flags extends ScriptFlags>(
  flags: Flags,
  { flags: values = {}, args = [] }: GivenArguments<Flags>,
): ScriptArguments<Flags> {
  const complete = Object.entries(flags).map(([name, flag]) => {
    const value = Object.hasOwn(values, name) ? values[name] : undefined;
    if (value === undefined && flag.type !== "boolean" && flag.required) {
      throw new TypeError(`Cannot run the script: flag "${name}" is missing`);
    }
    return [name, value ?? defaultOf(flag)];
  });
  return { flags: Object.fromEntries(complete), args };
}

/** Returns the lines of a usage text, with the descriptions at column `width`. */
export function describeScriptFlags(flags: ScriptFlags, width: number): string[] {
  return Object.entries(flags).map(([name, flag]) => {
    const { type, description } = flag;
    const { value = type === "number" ? "N" : "TEXT", required, default: fallback } = type === "boolean"
      ? { value: "" }
      : flag;
    const facts = [
      ...required ? ["required"] : [],
      ...type === "list" ? ["repeatable"] : [],
      ...fallback === undefined ? [] : [`default: ${Deno.inspect(fallback)}`],
    ];
    const head = `  --${flagName(name)}${type === "boolean" ? "" : ` ${value}`}`.padEnd(width - 1);
    return `${head} ${
      [description, facts.length === 0 ? undefined : `(${facts.join(", ")})`].filter(Boolean).join(" ")
    }`
      .trimEnd();
  });
}

function defaultOf(flag: ScriptFlag): FlagValue<ScriptFlag> {
  if (flag.type === "boolean") return false;
  return flag.default ?? (flag.type === "list" ? [] : undefined);
}

function number(flag: string, text: string): number {
  const value = Number(text);
  if (/^[-+.\d]/.test(text) && Number.isFinite(value)) return value;
  throw new UsageError(`--${flag}: the value must be a number, got "${text}"`);
}
