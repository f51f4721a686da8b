/** The flag `--capture`, which writes the packets that pass the devices of a script to a file or a pipe. */

import { Capture, PcapngWriter } from "../../lib/stage/observe/capture.ts";
import { compileFilter } from "../../lib/filter/mod.ts";
import { CapturePipe, openCaptureFile } from "./capture_sink.ts";
import { UsageError } from "./failure.ts";
import type { CheckedTunnelOptions } from "../tunnel/tunnel_options.ts";

/** One capture for all tunnels of a script. */
export interface ScriptCapture extends AsyncDisposable {
  /** Returns the options of a tunnel with the capture as first stage. */
  before(name: string, options: CheckedTunnelOptions): CheckedTunnelOptions;
}

/**
 * Checks that a capture can be written, without leaving a file behind.
 *
 * @throws {UsageError} when standard output is a terminal.
 * @throws {Error} the errors of {@linkcode openCaptureFile}.
 */
export function checkCapture(path: string): void {
  if (path === "-") return refuseTerminal();
  openCaptureFile(path)[Symbol.dispose]();
  Deno.removeSync(path);
}

function refuseTerminal(): void {
  if (!Deno.stdout.isTerminal()) return;
  throw new UsageError(
    "Cannot write the capture: standard output is a terminal: use --capture - | wireshark -k -i -, or --capture FILE",
  );
}

/** Reserves standard output for the capture, and directs the console of the script to standard error. */
function openStandardOutput(): CapturePipe {
  refuseTerminal();
  const { error } = console;
  Object.assign(console, { log: error, info: error, debug: error });
  return new CapturePipe(Deno.stdout.writable);
}

/**
 * Opens a capture of the packets that match a filter; the path `-` stands for standard output.
 *
 * @throws {UsageError} when standard output is a terminal.
 * @throws {Error} the errors of {@linkcode openCaptureFile}.
 */
export function openCapture(path: string, filter: string): ScriptCapture {
  const target = path === "-" ? openStandardOutput() : openCaptureFile(path);
  const writer = new PcapngWriter(target);
  const matches = filter === "" ? undefined : compileFilter(filter);
  return {
    before(name, options) {
      const capture = new Capture(writer, {
        interface: name || options.device?.name || options.given.name || "tun",
        filter: matches,
      });
      return { ...options, stages: [capture, ...options.stages] };
    },
    async [Symbol.asyncDispose]() {
      writer.flush();
      if (target instanceof CapturePipe) await target[Symbol.asyncDispose]();
      else target[Symbol.dispose]();
    },
  };
}
