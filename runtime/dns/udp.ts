/**
 * Upstream that uses DNS over UDP.
 *
 *     query ──► new socket, random ID ──► sent and retransmitted ══════════════► server
 *     response ◄── ID, question and server match? ◄══════════════════════════════┘
 *          └── truncated: the query is sent again over TCP
 */

import { createSocket, type Socket } from "node:dgram";
import { formatHostPort, requireNet } from "../transport/host_port.ts";
import { tcpUpstream } from "./tcp.ts";
import {
  close,
  isResponseTo,
  isTruncated,
  Life,
  parseServer,
  type Upstream,
  withRandomId,
} from "./upstream.ts";

// Implementation
/** Interval before the first retransmission (milliseconds); doubled each time. */
const RESEND_INTERVAL = 800;
/** Maximum age of a socket that was opened in advance (milliseconds). */
const MAX_SOCKET_AGE = 10_000;

/**
 * Creates an upstream over UDP, which uses a new socket and port for each query. It repeats the query over TCP if the
 * response is truncated. A response must come from the server's address and port, with the query's random ID and
 * question (RFC 5452).
 *
 * **Limits**: without DNS cookies (RFC 7873), an attacker who sees the queries can forge responses. While a tunnel is
 * busy, Deno polls its sockets at intervals of 16 ms or more, so a response takes at least that long.
 *
 * @param server Address, such as `192.0.2.1`, `192.0.2.1:53`, `2001:db8::1` or `[2001:db8::1]:53`.
 * @throws {SyntaxError} when `server` has a different form.
 * @throws {Deno.errors.NotCapable} without `--allow-net`.
 *
 * @example
 * ```ts no-eval
 * import { decodeMessage, encodeMessage } from "@warren/tunnel/dns";
 * import { udpUpstream } from "@warren/tunnel/dns_upstream";
 *
 * using upstream = udpUpstream("192.0.2.1:53");
 * const query = encodeMessage({ questions: [{ name: "www.example.com", type: "A" }] });
 * console.log(decodeMessage(await upstream.query(query, AbortSignal.timeout(2000)))?.answers);
 * ```
 */
export function udpUpstream(server: string): Upstream {
  const { host, port, family } = parseServer(server);
  const place = formatHostPort(host, port);
  requireNet(place);
  const name = `udp ${place}`;
  const life = new Life(name);
  const tcp = tcpUpstream(place);
  const sockets = new Sockets(host, port, family);
  return {
    name,
    async query(message, signal) {
      const bound = life.bound(signal);
      const response = await exchange(withRandomId(message), sockets.take(), port, bound);
      return isTruncated(response) ? await tcp.query(message, bound) : response;
    },
    [Symbol.dispose]() {
      life.end();
      sockets[Symbol.dispose]();
      tcp[Symbol.dispose]();
    },
  };
}

/** A socket that is connected, or being connected, to the server. */
interface Opening {
  readonly socket: Socket;
  readonly opened: Promise<void>;
  readonly since: number;
}

/**
 * Sockets to the server. One is opened in advance, because each step of opening waits for a turn of the event loop.
 * While a tunnel was busy, queries took 60 to 770 ms without this, and mostly 20 to 60 ms with it.
 */
class Sockets implements Disposable {
  readonly #host: string;
  readonly #port: number;
  readonly #family: 4 | 6;
  #ahead: Opening | undefined;
  #isClosed = false;

  constructor(host: string, port: number, family: 4 | 6) {
    this.#host = host;
    this.#port = port;
    this.#family = family;
  }

  /** Returns an unused socket. */
  take(): Opening {
    const ahead = this.#ahead;
    this.#ahead = this.#open();
    if (ahead === undefined) return this.#open();
    // A connected socket keeps its source address, but the system's address may have changed.
    if (performance.now() - ahead.since < MAX_SOCKET_AGE) return ahead;
    close(ahead.socket);
    return this.#open();
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    if (this.#ahead !== undefined) close(this.#ahead.socket);
    this.#ahead = undefined;
  }

  #open(): Opening {
    const socket = createSocket(this.#family === 4 ? "udp4" : "udp6");
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    // The query that takes the socket handles the rejection.
    promise.catch(() => {});
    socket.on("error", reject);
    socket.connect(this.#port, this.#host, () => {
      resolve();
      if (this.#isClosed) close(socket);
    });
    return { socket, opened: promise, since: performance.now() };
  }
}

/** Sends and retransmits a query until a response arrives or the signal aborts, then closes the socket. */
async function exchange(
  query: Uint8Array,
  { socket, opened }: Opening,
  port: number,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const send = (wait: number): void => {
    socket.send(query);
    timer = setTimeout(() => send(wait * 2), wait);
  };
  const end = (): void => reject(signal.reason);
  signal.addEventListener("abort", end, { once: true });
  if (signal.aborted) end();
  socket.on("error", reject);
  socket.on("message", (message, from) => {
    // A connected socket receives only from the server. The port is checked for systems that do not enforce this.
    if (from.port === port && isResponseTo(query, message)) resolve(Uint8Array.from(message));
  });
  opened.then(() => signal.aborted || send(RESEND_INTERVAL), reject);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
    close(socket);
  }
}
