/** V8 CPU profiles of scripts, as files for Chrome DevTools. */

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
 * Sampling interval (microseconds). Each sample wakes the loop: a relay that is pinged every 10 ms uses twice its usual
 * processor time with this interval, and 5 times with an interval of 200. Under load, the cost is within the noise of
 * 10 %.
 */
const INTERVAL = 1000;
/** Maximum duration (milliseconds): 600,000 samples take about 80 MB, and a third of a second to write. */
const LIMIT = 10 * 60_000;
/** A column after the end of any line. */
const LINE_END = 2 ** 31 - 1;

/** Options of a profile. */
export interface ProfileOptions {
  /** True to print nothing when the file is written. @default {false} */
  readonly quiet?: boolean;
  /** Maximum duration (milliseconds). @default {600000} */
  readonly limit?: number;
}

/** Returns the default name of a script's profile: the script's name and the local time. */
export function profileName(script: string, time = Temporal.Now.plainDateTimeISO()): string {
  const file = basename(script.replace(/[?#].*/s, "")).replace(/\.\w+$/, "");
  const name = file.replace(/[^\p{L}\p{N}._-]/gu, "_");
  return `${name}-${fileTime(time)}${PROFILE_SUFFIX}`;
}

/**
 * Creates the file of a profile, so that errors appear before the recording. Without `start()`, disposal removes it.
 *
 * @throws {Deno.errors.AlreadyExists} when the file exists.
 * @throws {Deno.errors.NotCapable} without `--allow-write` and `--allow-sys`.
 * @throws {Error} for other errors of the file system.
 */
export function openProfile(path: string, options: ProfileOptions = {}): Profile {
  const session = new Session();
  try {
    session.connect();
    const other = "choose another name with --profile=FILE";
    const file = openNewFile("profile", path, { AlreadyExists: other, PermissionDenied: other });
    return new Profile(path, file, session, options);
  } catch (error) {
    session.disconnect();
    if (!(error instanceof Deno.errors.NotCapable)) throw error;
    const remedy = "deno has no permission: run it with --allow-sys and --allow-write";
    throw new Deno.errors.NotCapable(`Cannot write profile "${path}": ${remedy}`, { cause: error });
  }
}

/**
 * CPU profile of this thread. It begins with `start()`; the file is written on disposal, at the end of the process, or
 * at the time limit. Time in native libraries and system calls appears under the calling function, and time in
 * functions that V8 inlined before the start counts towards their callers. A process that is killed leaves an empty
 * file.
 */
export class Profile implements Disposable {
  readonly #path: string;
  readonly #file: Deno.FsFile;
  readonly #session: Session;
  readonly #quiet: boolean;
  readonly #limit: number;
  #stopWatching: (() => void) | undefined;
  #started = false;
  #ended = false;

  /** For {@linkcode openProfile}. */
  constructor(path: string, file: Deno.FsFile, session: Session, options: ProfileOptions) {
    // The script may change its working directory.
    this.#path = resolve(path);
    this.#file = file;
    this.#session = session;
    this.#quiet = options.quiet ?? false;
    this.#limit = options.limit ?? LIMIT;
  }

  /** Starts recording. */
  start(): void {
    const session = this.#session;
    callInspector<void>((done) => session.post("Profiler.enable", done));
    callInspector<void>((done) => session.post("Profiler.setSamplingInterval", { interval: INTERVAL }, done));
    callInspector<void>((done) => session.post("Profiler.start", done));
    this.#started = true;
    const timer = setTimeout(() => this.#end(), this.#limit);
    timer.unref();
    const removeExitListener = onExit(() => this.#end());
    this.#stopWatching = () => {
      clearTimeout(timer);
      removeExitListener();
    };
  }

  /** Writes the file, or removes it if recording was never started. */
  [Symbol.dispose](): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#stopWatching?.();
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

  /** Ends the profile. Prints an error instead of throwing it, as no caller could handle it. */
  #end(): void {
    try {
      this[Symbol.dispose]();
    } catch (error) {
      console.error(`warren: ${errorMessage(error)}`);
    }
    // The thread may end before its queue is written.
    stderr().flushSync();
  }

  #write(): void {
    const { profile } = callInspector<Profiler.StopReturnType>((done) =>
      this.#session.post("Profiler.stop", done)
    );
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
      `CPU profile of ${seconds} s: ${this.#path}. Open it in Chrome DevTools: Performance, Load profile`,
    );
  }
}

function remove(path: string): void {
  try {
    Deno.removeSync(path);
  } catch {
    // Another program may have removed it or its folder.
  }
}

/**
 * Calls the inspector and returns its result. The inspector responds at once, but its session reports the result in the
 * next tick, which an ending process does not reach.
 */
function callInspector<Result>(call: (done: (error: Error | null, result: Result) => void) => void): Result {
  let response: { error: Error | null; result: Result } | undefined;
  const { nextTick } = process;
  process.nextTick = (callback: () => void) => callback();
  try {
    call((error, result) => response = { error, result });
  } finally {
    process.nextTick = nextTick;
  }
  if (response === undefined) throw new Error("Cannot profile: the inspector does not respond");
  if (response.error !== null) throw new Error(`Cannot profile: ${response.error.message}`);
  return response.result;
}

/** Names native calls after their callers, because V8 has no names for functions of native libraries. */
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

/** Maps lines of the JavaScript that Deno generates to lines of the source file. */
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

/** Returns true for an entry of the file itself; maps of libraries may refer to files that do not exist. */
function isOf(url: string, entry: ReturnType<SourceMap["findEntry"]> | undefined): entry is SourceMapping {
  return entry !== undefined && "originalSource" in entry && entry.originalSource === url;
}
