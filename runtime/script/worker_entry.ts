/**
 * Main module of all worker threads of a script except the first.
 *
 *     here ─► port ─► open: load the script, join its devices ─► opened ─► go: main ─► ended
 *
 * Each worker runs the script on its own queue. Only the first worker configures devices, handles signals and prints.
 */

import { dropShare, joinDevice } from "../../driver/open_device.ts";
import type { DeviceShare } from "../../driver/share.ts";
import type { Device, WorkerPlace } from "../../lib/core/mod.ts";
import { parseScriptFlags } from "./flags.ts";
import { currentLoop } from "../engine/loop.ts";
import { TunnelStart } from "../tunnel/open_tunnel.ts";
import { flushOutput, takeConsole } from "./output.ts";
import { declaredTunnels, isScript, runMain, type TunnelScript, type TunnelsScript } from "./script.ts";
import type { Tunnel } from "../tunnel/tunnel.ts";
import type { CheckedTunnelOptions } from "../tunnel/tunnel_options.ts";
import { onExit } from "../engine/signals.ts";
import { watchElsewhere } from "../engine/watchdog.ts";
import { WorkerLink } from "../ring/link.ts";
import { type Order, postable, type Report, type TunnelPart } from "../workers/messages.ts";

const links = new Map<string, WorkerLink>();
const opened: Record<string, Tunnel> = {};
/** Tunnels that have ended in another worker, possibly before they were open here. */
const endedInOthers = new Set<string>();
/** Errors that were reported to the first worker as errors of a tunnel. */
const reported = new Set<unknown>();
const going = Promise.withResolvers<boolean>();

// Global scope of a worker; Deno's types describe that of a window.
const scope = globalThis as unknown as { postMessage(message: unknown): void; close(): void };
const close = scope.close.bind(scope);
let port: MessagePort;

function send(report: Report): void {
  port.postMessage(report);
}

async function load(url: string): Promise<TunnelScript | TunnelsScript> {
  const { default: made } = await import(url) as { default: unknown };
  if (!isScript(made)) {
    throw new TypeError(`Cannot run in a worker: the default export of ${url} must be a script`);
  }
  return made;
}

async function openPart(
  name: string,
  { device, far, link: parts }: TunnelPart,
  options: CheckedTunnelOptions,
  place: WorkerPlace,
  join: (share: DeviceShare) => Promise<Device>,
): Promise<Tunnel> {
  const link = await WorkerLink.open(place, parts, {
    sendRing: (ring, to) => send({ kind: "ring", tunnel: name, to, ring }),
    leave: () => Promise.resolve(),
  });
  const openFar = async () => far === undefined ? undefined : await join(far);
  await using start = await TunnelStart.begin(options, false);
  const tunnel = await start.openNear(() => join(device), openFar, link);
  links.set(name, link);
  tunnel.closed.then(
    () => send({ kind: "closed", tunnel: name, failed: false, error: undefined }),
    (error) => {
      reported.add(error);
      send({ kind: "closed", tunnel: name, failed: true, error: postable(error) });
    },
  );
  if (endedInOthers.has(name)) tunnel.close();
  return tunnel;
}

async function serve(order: Order & { kind: "open" }): Promise<void> {
  const { script, args, index, count, tunnels } = order;
  const left = new Set(
    Object.values(tunnels).flatMap(({ device, far }) => far === undefined ? device : [device, far]),
  );
  const join = (share: DeviceShare): Promise<Device> => {
    left.delete(share);
    return joinDevice(share);
  };
  currentLoop().heartbeat.worker = ` in worker ${index}`;
  watchElsewhere((heart) => send({ kind: "heart", heart }));
  await using closing = new AsyncDisposableStack();
  closing.defer(async () => {
    for (const share of left) await dropShare(share);
  });
  const made = await load(script);
  const flags = parseScriptFlags(args, declaredTunnels(made), made.options.flags);
  for (const [name, part] of Object.entries(tunnels)) {
    const options = flags.tunnels[name];
    if (options === undefined) {
      throw new TypeError(`Cannot run in a worker: the script has no tunnel "${name}" there`);
    }
    opened[name] = closing.use(await openPart(name, part, options, { index, count }, join));
  }
  send({ kind: "opened" });
  if (await going.promise) await runMain(made, opened, flags.given);
}

async function run(order: Order & { kind: "open" }): Promise<void> {
  let failure: { error: unknown } | undefined;
  try {
    await serve(order);
  } catch (error) {
    failure = { error };
  }
  const failed = failure !== undefined && !reported.has(failure.error);
  removeExitListener();
  await flushOutput();
  send({ kind: "ended", failed, error: failed ? postable(failure!.error) : undefined, exit: undefined });
  close();
}

/** Closes all tunnels when the thread is about to end, and reports the end. */
function end(event: Event): void {
  for (const tunnel of Object.values(opened)) tunnel.close();
  if (event.type === "unload") send({ kind: "ended", failed: false, error: undefined, exit: Deno.exitCode });
}

takeConsole();
const removeExitListener = onExit(end);
// Otherwise a call of close() by the script would end the thread without a report.
scope.close = () => Deno.exit();

function receive({ data: order }: MessageEvent<Order>): void {
  switch (order.kind) {
    case "open":
      run(order);
      break;
    case "go":
      going.resolve(true);
      break;
    case "ring":
      links.get(order.tunnel)?.accept(order.ring);
      break;
    case "close":
      endedInOthers.add(order.tunnel);
      links.get(order.tunnel)?.onEnd?.(undefined);
      break;
    case "stop":
      going.resolve(false);
      for (const tunnel of Object.values(opened)) tunnel.close();
      break;
  }
}

addEventListener("message", (event) => {
  event.stopImmediatePropagation();
  [port] = (event as MessageEvent).ports as unknown as [MessagePort];
  port.onmessage = receive;
}, { once: true });
scope.postMessage("here");
