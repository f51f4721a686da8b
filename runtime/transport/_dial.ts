/** TCP connections to a host with several addresses, of which the first to answer is used (RFC 8305). */

import { parseAddress } from "../../lib/wire/address.ts";
import { formatHostPort, type HostPort } from "./host_port.ts";
import type { FarEndContext } from "./end_opener.ts";
import { resolveHost } from "./resolve_host.ts";

// Implementation
/** RFC 8305 section 5: delay between the starts of two attempts (milliseconds). */
const ATTEMPT_DELAY = 250;

/**
 * Connects to a host outside the tunnel, trying its addresses in the order of getaddrinfo(3). The next attempt starts
 * when the previous one has failed or takes long.
 *
 * @throws the error of the first address that failed, if all fail; the abort reason of the signal.
 */
export async function dial(
  place: HostPort,
  context: FarEndContext,
  signal: AbortSignal,
): Promise<Deno.TcpConn> {
  signal.throwIfAborted();
  const places = await unlessAborted(signal, placesOf(place, context));
  const { promise, resolve, reject } = Promise.withResolvers<Deno.TcpConn>();
  const attempts = new AbortController();
  const stop = () => attempts.abort(signal.reason);
  signal.addEventListener("abort", stop);
  let failure: unknown;
  let next = 0;
  let running = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const start = () => {
    clearTimeout(timer);
    const place = places[next++]!;
    running++;
    if (next < places.length) timer = setTimeout(start, ATTEMPT_DELAY);
    connect(place, context, attempts.signal).then((socket) => {
      if (attempts.signal.aborted) {
        socket.close();
        return reject(attempts.signal.reason);
      }
      attempts.abort();
      resolve(socket);
    }, (error) => {
      failure ??= error;
      running--;
      if (attempts.signal.aborted) reject(attempts.signal.reason);
      else if (next < places.length) start();
      else if (running === 0) reject(failure);
    });
  };
  start();
  try {
    const socket = await promise;
    socket.setNoDelay();
    return socket;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
}

/** Returns the addresses of a host, or its name if `--allow-net` grants access to the name but not to the addresses. */
async function placesOf(place: HostPort, context: FarEndContext): Promise<readonly HostPort[]> {
  if (place.family === undefined && !mayConnect(place.host)) return [place];
  const found = await context.lookUp(() => resolveHost(place));
  return found.every(({ host, port }) => mayConnect(formatHostPort(host, port))) ? found : [place];
}

function mayConnect(host: string): boolean {
  return Deno.permissions.querySync({ name: "net", host }).state === "granted";
}

async function connect(
  { host, port, family }: HostPort,
  context: FarEndContext,
  signal: AbortSignal,
): Promise<Deno.TcpConn> {
  if (family !== undefined) context.bypass(parseAddress(host));
  return await Deno.connect({ hostname: host, port, signal });
}

/**
 * Runs one step with a socket, and closes the socket if the step fails.
 *
 * @throws the error of the step; the abort reason of the signal, as soon as it aborts.
 */
export async function step<Result>(
  socket: Deno.Conn,
  signal: AbortSignal,
  work: () => Promise<Result>,
): Promise<Result> {
  const close = () => closeQuietly(socket);
  signal.addEventListener("abort", close);
  try {
    signal.throwIfAborted();
    const result = await work();
    signal.throwIfAborted();
    return result;
  } catch (error) {
    closeQuietly(socket);
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener("abort", close);
  }
}

function closeQuietly(socket: Deno.Conn): void {
  try {
    socket.close();
  } catch {
    // The socket is already closed, or TLS has replaced it.
  }
}

/** Waits for a promise. @throws the abort reason of the signal, as soon as it aborts. */
async function unlessAborted<Result>(signal: AbortSignal, work: Promise<Result>): Promise<Result> {
  const { promise, reject } = Promise.withResolvers<never>();
  const stop = () => reject(signal.reason);
  signal.addEventListener("abort", stop);
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
