/** `--capture`: what passes next to the devices of a script, in one file or a pipe. */

import { Capture, PcapngWriter } from "../../lib/stage/observe/capture.ts";
import { compileFilter } from "../../lib/filter/mod.ts";
import { CapturePipe, openCaptureFile } from "./capture_sink.ts";
import { UsageError } from "./failure.ts";
import type { TunnelOptions } from "../tunnel/tunnel.ts";

/** A capture of a script's tunnels. */
export interface ScriptCapture extends AsyncDisposable {
  /** The options of one of them, with a capture as the first stage. */
  before(name: string, options: TunnelOptions): TunnelOptions;
}

/**
 * Finds out whether a capture could be written; nothing is left of that.
 *
 * @throws {UsageError} for standard output that is a terminal.
 * @throws {Error} as {@linkcode openCaptureFile} does.
 */
export function checkCapture(path: string): void {
  if (path === "-") return refuseTerminal();
  openCaptureFile(path)[Symbol.dispose]();
  Deno.removeSync(path);
}

function refuseTerminal(): void {
  if (!Deno.stdout.isTerminal()) return;
  throw new UsageError(
    "Cannot write the capture: standard output is a terminal: --capture - | wireshark -k -i -, or --capture FILE",
  );
}

/** Standard output with nothing but the capture in it: what the script prints goes to standard error. */
function openStandardOutput(): CapturePipe {
  refuseTerminal();
  const { error } = console;
  Object.assign(console, { log: error, info: error, debug: error });
  return new CapturePipe(Deno.stdout.writable);
}

/**
 * Opens a capture of what a filter likes; `-` is standard output.
 *
 * @throws {UsageError} when that is a terminal.
 * @throws {Error} as {@linkcode openCaptureFile} does.
 */
export function openCapture(path: string, filter: string): ScriptCapture {
  const target = path === "-" ? openStandardOutput() : openCaptureFile(path);
  const writer = new PcapngWriter(target);
  const matches = filter === "" ? undefined : compileFilter(filter);
  return {
    before(name, options) {
      const capture = new Capture(writer, {
        interface: name || options.device?.name || options.name || "tun",
        ...matches === undefined ? {} : { filter: matches },
      });
      return { ...options, stages: [capture, ...options.stages ?? []] };
    },
    async [Symbol.asyncDispose]() {
      writer.flush();
      if (target instanceof CapturePipe) await target[Symbol.asyncDispose]();
      else target[Symbol.dispose]();
    },
  };
}
