/** A V8 CPU profile of a script's main, in a file that Chrome DevTools opens. */

import { type Profiler, Session } from "node:inspector";
import { findSourceMap, type SourceMap, type SourceMapping } from "node:module";
import { basename, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { errorMessage } from "../../driver/error.ts";
import { stderr } from "./output.ts";
import { onExit } from "../engine/signals.ts";
import { fileError } from "./file_error.ts";
import { fileTime, openNewFile } from "./new_file.ts";
import { PROFILE_SUFFIX } from "./profile_flag.ts";

// Implementation
/**
 * Microseconds from one sample to the next. Each sample ends the loop's wait: with 200, a relay that is pinged every
 * 10 ms takes 5 times its processor time, with these twice; under load neither is seen in the noise of 10 %.
 */
const INTERVAL = 1000;
/** How long it records (milliseconds): 600,000 samples, which take some 80 MB, and a third of a second to write. */
const LIMIT = 10 * 60_000;
/** Behind the last column of a line. */
const LINE_END = 2 ** 31 - 1;

/** How a profile is taken. */
export interface ProfileOptions {
  /** Whether to keep to itself where it is. @default {false} */
  readonly quiet?: boolean;
  /** After how many milliseconds it is written though the script goes on. @default {600000} */
  readonly limit?: number;
}

/** What a script's profile is called when nobody says: the script's name, and the time here. */
export function profileName(script: string, time = Temporal.Now.plainDateTimeISO()): string {
  const file = basename(script.replace(/[?#].*/s, "")).replace(/\.\w+$/, "");
  const name = file.replace(/[^\p{L}\p{N}._-]/gu, "_");
  return `${name}-${fileTime(time)}${PROFILE_SUFFIX}`;
}

/**
 * Makes a profile's file, so that nothing is recorded that cannot be kept. Without `start()` it is removed again.
 *
 * @throws {Deno.errors.AlreadyExists} when there is such a file.
 * @throws {Deno.errors.NotCapable} without `--allow-write` and `--allow-sys`.
 * @throws {Error} of the system's class, when it refuses the file.
 */
export function openProfile(path: string, options: ProfileOptions = {}): Profile {
  const session = new Session();
  try {
    session.connect();
    const other = "choose another by --profile=FILE";
    const file = openNewFile("profile", path, { AlreadyExists: other, PermissionDenied: other });
    return new Profile(path, file, session, options);
  } catch (error) {
    session.disconnect();
    if (!(error instanceof Deno.errors.NotCapable)) throw error;
    const message = `Cannot write profile "${path}": deno may not: run it with --allow-sys and --allow-write`;
    throw new Deno.errors.NotCapable(message, { cause: error });
  }
}

/**
 * Where this thread spends its time, from `start()` until it is disposed of, the process ends or the limit is reached;
 * then the file is written. What a function spends in native libraries, system calls too, is beneath it. Functions that
 * V8 optimized before the start are not told from those that call them. A process that is killed leaves an empty file.
 */
export class Profile implements Disposable {
  readonly #path: string;
  readonly #file: Deno.FsFile;
  readonly #session: Session;
  readonly #quiet: boolean;
  readonly #limit: number;
  #forget: (() => void) | undefined;
  #started = false;
  #ended = false;

  /** For {@linkcode openProfile}. */
  constructor(path: string, file: Deno.FsFile, session: Session, options: ProfileOptions) {
    // The script may change the folder that it is in.
    this.#path = resolve(path);
    this.#file = file;
    this.#session = session;
    this.#quiet = options.quiet ?? false;
    this.#limit = options.limit ?? LIMIT;
  }

  /** Records from now on. */
  start(): void {
    const session = this.#session;
    answer<void>((done) => session.post("Profiler.enable", done));
    answer<void>((done) => session.post("Profiler.setSamplingInterval", { interval: INTERVAL }, done));
    answer<void>((done) => session.post("Profiler.start", done));
    this.#started = true;
    const timer = setTimeout(() => this.#end(), this.#limit);
    timer.unref();
    const forgetExit = onExit(() => this.#end());
    this.#forget = () => {
      clearTimeout(timer);
      forgetExit();
    };
  }

  /** Writes the file, or removes it when nothing was started. */
  [Symbol.dispose](): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#forget?.();
    let kept = false;
    try {
      if (this.#started) this.#write();
      kept = this.#started;
    } finally {
      this.#session.disconnect();
      this.#file.close();
      if (!kept) remove(this.#path);
    }
  }

  /** Where nobody is left to tell, a failure is printed. */
  #end(): void {
    try {
      this[Symbol.dispose]();
    } catch (error) {
      console.error(`warren: ${errorMessage(error)}`);
    }
    // The thread may not live to write it.
    stderr().flushSync();
  }

  #write(): void {
    const { profile } = answer<Profiler.StopReturnType>((done) => this.#session.post("Profiler.stop", done));
    nameNativeCalls(profile);
    locate(profile);
    try {
      const bytes = new TextEncoder().encode(JSON.stringify(profile));
      for (let written = 0; written < bytes.length;) written += this.#file.writeSync(bytes.subarray(written));
    } catch (error) {
      throw fileError(`write profile "${this.#path}"`, error);
    }
    if (this.#quiet) return;
    const seconds = ((profile.endTime - profile.startTime) / 1e6).toFixed(1);
    console.error(
      `The profile of ${seconds} s is ${this.#path}: open it in Chrome's DevTools: Performance, Load profile`,
    );
  }
}

function remove(path: string): void {
  try {
    Deno.removeSync(path);
  } catch {
    // Another program has removed it, or its folder.
  }
}

/**
 * Asks the inspector, and returns what it answers. It answers at once, but its session tells that in the next tick,
 * which a process that ends does not have.
 */
function answer<Result>(ask: (done: (error: Error | null, result: Result) => void) => void): Result {
  let answered: { error: Error | null; result: Result } | undefined;
  const { nextTick } = process;
  process.nextTick = (callback: () => void) => callback();
  try {
    ask((error, result) => answered = { error, result });
  } finally {
    process.nextTick = nextTick;
  }
  if (answered === undefined) throw new Error("Cannot profile: the inspector does not answer");
  if (answered.error !== null) throw new Error(`Cannot profile: ${answered.error.message}`);
  return answered.result;
}

/** Says whose they are: V8 has no name for functions of native libraries. */
function nameNativeCalls({ nodes }: Profiler.Profile): void {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  for (const { callFrame, children = [] } of nodes) {
    for (const id of children) {
      const called = byId.get(id)!.callFrame;
      if (called.functionName === "" && called.url === "") {
        called.functionName = `(native call of ${callFrame.functionName})`;
      }
    }
  }
}

/** Turns lines of the JavaScript that Deno makes of a file into those of the file. */
function locate({ nodes }: Profiler.Profile): void {
  for (const { callFrame, positionTicks = [] } of nodes) {
    const { url } = callFrame;
    const map = url.startsWith("file:") ? findSourceMap(fileURLToPath(url)) : undefined;
    const entry = map?.findEntry(callFrame.lineNumber, callFrame.columnNumber);
    if (map === undefined || !isOf(url, entry)) continue;
    callFrame.lineNumber = entry.originalLine;
    callFrame.columnNumber = entry.originalColumn;
    for (const tick of positionTicks) {
      const last = map.findEntry(tick.line - 1, LINE_END);
      if (isOf(url, last)) tick.line = last.originalLine + 1;
    }
  }
}

/** A library's own map may lead to files that are not here. */
function isOf(url: string, entry: ReturnType<SourceMap["findEntry"]> | undefined): entry is SourceMapping {
  return entry !== undefined && "originalSource" in entry && entry.originalSource === url;
}
