/** `--capture`: what passes next to the devices of a script, in one file or a pipe. */

import { Capture, PcapngWriter } from "../../lib/capture/mod.ts";
import { compileFilter } from "../../lib/filter/mod.ts";
import { CapturePipe, openCaptureFile } from "../capture_sink.ts";
import type { TunnelOptions } from "../tunnel.ts";

/** A capture of a script's tunnels. */
export interface ScriptCapture extends AsyncDisposable {
  /** The options of one of them, with a capture as the first stage. */
  before(name: string, options: TunnelOptions): TunnelOptions;
}

/**
 * Finds out whether a capture could be written; nothing is left of that.
 *
 * @throws {Error} as {@linkcode openCaptureFile} does.
 */
export function checkCapture(path: string): void {
  if (path === "-") return;
  openCaptureFile(path)[Symbol.dispose]();
  Deno.removeSync(path);
}

/**
 * Opens a capture of what a filter likes; `-` is standard output.
 *
 * @throws {Error} as {@linkcode openCaptureFile} does.
 */
export function openCapture(path: string, filter: string): ScriptCapture {
  const target = path === "-" ? new CapturePipe(Deno.stdout.writable) : openCaptureFile(path);
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
      if (!(target instanceof CapturePipe)) return target[Symbol.dispose]();
      await target[Symbol.asyncDispose]();
      if (target.lost > 0) {
        console.error(`${target.lost} bytes of the capture were lost: nobody read them in time`);
      }
    },
  };
}
