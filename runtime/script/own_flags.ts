/** A script's own flags: what it declares, and what its command line gave. */

import { checkNames, type OptionNames } from "../../lib/core/options.ts";
import { UsageError } from "./failure.ts";

/** A flag with a value. One of type `list` may be repeated, with a text each time. */
export interface ValueFlag<Type extends "string" | "number" | "list", Value> {
  /** The kind of its value. */
  readonly type: Type;
  /** Its text in `--help`. */
  readonly description?: string;
  /** A name for its value in `--help`, such as `FILE`. @default {"TEXT"}, or `"N"` for a number */
  readonly value?: string;
  /** True if the script cannot run without it. @default {false} */
  readonly required?: boolean;
  /** Its value where the command line has none; a list is empty then. */
  readonly default?: Value;
}

/** A flag without a value: `true` where it is given, `false` where it is not. */
export interface BooleanFlag {
  /** The kind of its value. */
  readonly type: "boolean";
  /** Its text in `--help`. */
  readonly description?: string;
}

/** A flag of a script's own. Its name in the script, `maxPeers`, is `--max-peers` on the command line. */
export type ScriptFlag =
  | ValueFlag<"string", string>
  | ValueFlag<"number", number>
  | ValueFlag<"list", readonly string[]>
  | BooleanFlag;

/** A script's own flags, by their names in the script. */
export type ScriptFlags = Readonly<Record<string, ScriptFlag>>;

/** The value of a flag. */
export type FlagValue<Flag extends ScriptFlag> = Flag extends { readonly type: "boolean" } ? boolean
  : Flag extends { readonly type: "list" } ? readonly string[]
  :
    | (Flag extends { readonly type: "number" } ? number : string)
    | (Flag extends { readonly required: true } | { readonly default: string | number } ? never : undefined);

/** The values of a script's own flags, by their names in the script. */
export type FlagValues<Flags extends ScriptFlags> = {
  readonly [Name in keyof Flags]: FlagValue<Flags[Name]>;
};

/** The part of a script's command line that is for the script itself. */
export interface ScriptArguments<Flags extends ScriptFlags = ScriptFlags> {
  /** The values of its own flags. */
  readonly flags: FlagValues<Flags>;
  /** The words behind `--`. */
  readonly args: readonly string[];
}

/** {@linkcode ScriptArguments} for a call of a script's `main`: a flag that is left out has its default. */
export interface GivenArguments<Flags extends ScriptFlags = ScriptFlags> {
  /** The values of its own flags. */
  readonly flags?: Partial<FlagValues<Flags>>;
  /** The words behind `--`. @default {[]} */
  readonly args?: readonly string[];
}

const BOOLEAN_NAMES: OptionNames<BooleanFlag> = { type: "needed text", description: "text" };
const VALUE_NAMES: OptionNames<ValueFlag<"string", string>> = {
  ...BOOLEAN_NAMES,
  value: "text",
  required: "boolean",
  default: "optional",
};
const TYPES: readonly string[] = ["string", "number", "boolean", "list"];

/** The flag's name on the command line. */
export function flagName(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/**
 * Checks what a script declares.
 *
 * @param taken Names on the command line that are not the script's to use.
 * @throws {TypeError} when a flag is declared wrongly, or its name is taken.
 */
export function checkScriptFlags(flags: ScriptFlags, taken: readonly string[]): void {
  const names = new Set<string>();
  for (const [name, flag] of Object.entries(flags)) {
    const fail = (what: string): never => {
      throw new TypeError(`Cannot declare flag "${name}": ${what}`);
    };
    if (!/^[a-z][A-Za-z0-9]+$/.test(name)) fail(`its name must be of letters and digits, such as maxPeers`);
    if (name in {}) fail("every object has something of this name: choose another one");
    const written = flagName(name);
    if (taken.includes(written)) fail(`--${written} is one of every script's flags: choose another name`);
    if (names.has(written)) fail(`another one is --${written}, too`);
    names.add(written);
    if (!TYPES.includes(flag?.type)) {
      fail(`type must be ${TYPES.join(", ")}, got ${Deno.inspect(flag?.type)}`);
    }
    const attempt = `declare flag "${name}"`;
    if (flag.type === "boolean") {
      checkNames(attempt, flag, BOOLEAN_NAMES);
      continue;
    }
    checkNames<object>(attempt, flag, VALUE_NAMES);
    if (flag.default === undefined) continue;
    if (flag.required) fail("one that is required has no default");
    const fits = flag.type === "list"
      ? Array.isArray(flag.default) && flag.default.every((text) => typeof text === "string")
      : flag.type === "number"
      ? typeof flag.default === "number"
      : typeof flag.default === "string";
    if (!fits) fail(`default must be a ${flag.type}, got ${Deno.inspect(flag.default)}`);
  }
}

/**
 * The values of a script's own flags.
 *
 * @param given Looks a flag up in the command line: its values, or `true` for a boolean.
 * @throws {UsageError} when one that is required is missing, is given twice, or has no value of its kind.
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
 * Completes what a caller of a script's `main` gave.
 *
 * @throws {TypeError} when a flag that is required is missing.
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

/** Lines of a usage text; the flags' names and values start each. */
export function describeScriptFlags(flags: ScriptFlags, width: number): string[] {
  return Object.entries(flags).map(([name, flag]) => {
    const { type, description } = flag;
    const { value = type === "number" ? "N" : "TEXT", required, default: fallback } = type === "boolean"
      ? { value: "" }
      : flag;
    const facts = [
      ...required ? ["required"] : [],
      ...type === "list" ? ["may be repeated"] : [],
      ...fallback === undefined ? [] : [`${Deno.inspect(fallback)} unless given`],
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
  throw new UsageError(`--${flag}: "${text}" is no number`);
}
