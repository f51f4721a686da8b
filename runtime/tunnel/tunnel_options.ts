/** Options of a tunnel, checked once: before its ends open. */

import {
  type CheckedDeviceOptions,
  DEVICE_OPTIONS,
  type DeviceOptions,
  parseDeviceOptions,
} from "../../driver/options.ts";
import type { Device, PacketHandler, Stage, TunnelEnd } from "../../lib/core/mod.ts";
import { checkInteger, checkOptions, gotValue, type OptionKinds } from "../../lib/core/options.ts";
import { currentLoop, Loop } from "../engine/loop.ts";
import type { EndOpener } from "../transport/end_opener.ts";
import { openerOf } from "../transport/far_url.ts";

// Implementation
const TUNNEL_OPTIONS: OptionKinds<TunnelOptions> = {
  ...DEVICE_OPTIONS,
  device: "any",
  far: "any",
  stages: "list",
  signal: AbortSignal,
  signals: "boolean",
  busyPoll: "number",
  watchdog: "number",
  loop: Loop,
};
/** Default time that a stage may take (milliseconds). */
const WATCHDOG = 5000;
/** Maximum delay of a timer (milliseconds). */
const MAX_DELAY = 2 ** 31 - 1;
/** One second (microseconds). */
const MAX_BUSY_POLL = 1_000_000;

/** Options of {@linkcode openTunnel}: those of the device, and those below. */
export interface TunnelOptions extends DeviceOptions {
  /** An open device, in place of the one that the device options describe. The tunnel closes it. */
  device?: Device;
  /**
   * The far end: an open end, an opener such as `udp({ peer: "192.0.2.1:4500" })`, or a URL such as
   * `udp://192.0.2.1:4500`. @default {none: packets that pass all stages outbound are dropped as `no far end`}
   */
  far?: TunnelEnd | EndOpener | string;
  /** Stages and handlers in outbound order; inbound packets pass them in reverse. @default {[]} */
  stages?: (Stage | PacketHandler)[];
  /** Closes the tunnel when it is aborted, or stops opening it. @default {none} */
  signal?: AbortSignal;
  /**
   * Closes the tunnel on SIGINT (Ctrl-C), SIGTERM and SIGHUP; on Windows, on Ctrl-C and Ctrl-Break. The exit code of a
   * script is then 0, or 130 after a second signal or if a stage does not return. A signal that was ignored when the
   * process started, such as SIGHUP under nohup(1), stays ignored. @default {true}
   */
  signals?: boolean;
  /**
   * Spins after each packet for this time before it waits (microseconds, at most 1,000,000). A packet that arrives
   * meanwhile saves the 10 to 60 us in which a waiting thread wakes up, and the loop uses a whole processor.
   * @default {0}
   */
  busyPoll?: number;
  /** Time after which a stage that does not return ends the process (milliseconds); 0 for none. @default {5000} */
  watchdog?: number;
  /**
   * Loop that moves the packets, for programs that embed Warren and for tests: on a loop with a clock of its own, the
   * stages run in that clock's time. @default {the loop of this thread}
   */
  loop?: Loop;
}

/** Options that have a default. */
type DefaultedOptions = Required<
  Pick<TunnelOptions, "stages" | "signals" | "busyPoll" | "watchdog" | "loop">
>;

/** Options of a tunnel, checked and parsed. */
export interface CheckedTunnelOptions extends Readonly<DefaultedOptions> {
  /** The options as given, for messages. */
  readonly given: TunnelOptions;
  /** Open device; `undefined` if the tunnel opens one. */
  readonly device: Device | undefined;
  /** Options of the device that the tunnel opens. */
  readonly deviceOptions: CheckedDeviceOptions;
  /** Far end, or its opener. */
  readonly far: TunnelEnd | EndOpener | undefined;
  /** Closes the tunnel when it is aborted. */
  readonly signal: AbortSignal | undefined;
  /** Number of workers: one for each queue on Linux, otherwise one. */
  readonly workers: number;
}

/** Checks and parses the options of a tunnel without a system call. */
export function checkTunnelOptions(options: TunnelOptions): CheckedTunnelOptions {
  const attempt = "open a tunnel";
  checkOptions(attempt, options, TUNNEL_OPTIONS);
  const { device, far, stages = [], signal, signals = true, busyPoll = 0 } = options;
  const { watchdog = WATCHDOG, loop = currentLoop() } = options;
  if (device !== undefined && typeof (device as Partial<Device> | null)?.attach !== "function") {
    throw new TypeError(`Cannot ${attempt}: device must be an open device, ${gotValue(device)}`);
  }
  checkInteger(attempt, "busyPoll", busyPoll, 0, MAX_BUSY_POLL);
  checkInteger(attempt, "watchdog", watchdog, 0, MAX_DELAY);
  const deviceOptions = parseDeviceOptions(options);
  return {
    given: options,
    device,
    deviceOptions,
    far: openerOf(far),
    stages,
    signal,
    signals,
    busyPoll,
    watchdog,
    loop,
    workers: Deno.build.os === "linux" ? deviceOptions.queues : 1,
  };
}
