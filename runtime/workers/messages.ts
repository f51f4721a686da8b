/**
 * What the first worker, which is the program itself, and the others say to each other: over a port of their own, for
 * the worker's scope is the script's.
 */

import type { DeviceShare } from "../../driver/mod.ts";
import type { Heart } from "../engine/watchdog.ts";
import type { LinkParts } from "../ring/link.ts";

/** What a worker needs for one of the script's tunnels. */
export interface TunnelPart {
  /** Its queue of the device. */
  readonly device: DeviceShare;
  /** Its queue of the far end, where that is a device. */
  readonly far: DeviceShare | undefined;
  /** What joins it with the others. */
  readonly link: LinkParts;
}

/** To a worker. */
export type Order =
  /** Load the script, with this command line, and open these tunnels. What is shared is the worker's from now on. */
  | {
    readonly kind: "open";
    readonly script: string;
    readonly args: readonly string[];
    readonly index: number;
    readonly count: number;
    readonly tunnels: Readonly<Record<string, TunnelPart>>;
  }
  /** Every worker is ready: call the script's main. */
  | { readonly kind: "go" }
  /** A ring that another worker writes, for a tunnel. */
  | { readonly kind: "ring"; readonly tunnel: string; readonly ring: SharedArrayBuffer }
  /** End a tunnel. */
  | { readonly kind: "close"; readonly tunnel: string }
  /** End. */
  | { readonly kind: "stop" };

/** From a worker. */
export type Report =
  /** What the watchdog is to watch in it; nothing any more. */
  | { readonly kind: "heart"; readonly heart: Heart | undefined }
  /** Its tunnels are open. */
  | { readonly kind: "opened" }
  /** A ring for another worker. */
  | {
    readonly kind: "ring";
    readonly tunnel: string;
    readonly to: number;
    readonly ring: SharedArrayBuffer;
  }
  /** One of its tunnels has ended: with why, when it failed. */
  | { readonly kind: "closed"; readonly tunnel: string; readonly failed: boolean; readonly error: unknown }
  /** The script has ended: by an error, or by `Deno.exit()` with this code. */
  | {
    readonly kind: "ended";
    readonly failed: boolean;
    readonly error: unknown;
    readonly exit: number | undefined;
  };

/** A value of a script's that can be posted: errors as they are, and what cannot be posted as its text. */
export function postable(value: unknown): unknown {
  try {
    return structuredClone(value);
  } catch {
    return value instanceof Error ? new Error(value.message) : Deno.inspect(value);
  }
}
