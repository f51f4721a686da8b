/**
 * Messages between the first worker, which is the program itself, and the other workers. They use a separate message
 * port, because messages of the worker's global scope belong to the script.
 */

import type { DeviceShare } from "../../driver/share.ts";
import type { Heart } from "../engine/watchdog.ts";
import type { LinkParts } from "../ring/link.ts";

/** A worker's part of a tunnel. */
export interface TunnelPart {
  /** The worker's queue of the device. */
  readonly device: DeviceShare;
  /** The worker's queue of the far end; `undefined` if the far end is not a device. */
  readonly far: DeviceShare | undefined;
  /** Link to the other workers. */
  readonly link: LinkParts;
}

/** Message to a worker. */
export type Order =
  /** Load the script with these arguments and open these tunnels. From now on the worker owns the shares. */
  | {
    readonly kind: "open";
    readonly script: string;
    readonly args: readonly string[];
    readonly index: number;
    readonly count: number;
    readonly tunnels: Readonly<Record<string, TunnelPart>>;
  }
  /** All workers are ready: call the script's main. */
  | { readonly kind: "go" }
  /** Read a ring from another worker. */
  | { readonly kind: "ring"; readonly tunnel: string; readonly ring: SharedArrayBuffer }
  /** Close a tunnel. */
  | { readonly kind: "close"; readonly tunnel: string }
  /** End the script. */
  | { readonly kind: "stop" };

/** Message from a worker. */
export type Report =
  /** Heartbeat for the watchdog; `undefined` to stop watching. */
  | { readonly kind: "heart"; readonly heart: Heart | undefined }
  /** The worker's tunnels are open. */
  | { readonly kind: "opened" }
  /** Pass a ring to another worker. */
  | {
    readonly kind: "ring";
    readonly tunnel: string;
    readonly to: number;
    readonly ring: SharedArrayBuffer;
  }
  /** One of the worker's tunnels has ended, with the error if it failed. */
  | { readonly kind: "closed"; readonly tunnel: string; readonly failed: boolean; readonly error: unknown }
  /** The script has ended, with the error if it failed, or the code of `Deno.exit()`. */
  | {
    readonly kind: "ended";
    readonly failed: boolean;
    readonly error: unknown;
    readonly exit: number | undefined;
  };

/** Returns a copy of a value that can be posted. A value that cannot be cloned becomes an error or a text. */
export function postable(value: unknown): unknown {
  try {
    return structuredClone(value);
  } catch {
    return value instanceof Error ? new Error(value.message) : Deno.inspect(value);
  }
}
