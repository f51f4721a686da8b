/**
 * DNS over UDP.
 *
 *     query ──► random id, own socket ──► sent and retransmitted ═════════════► server
 *     response ◄── id, question and server match? ◄══════════════════════════════┘
 *          └── truncated: sent again over TCP
 */

import { createSocket, type Socket } from "node:dgram";
import { formatHostPort, requireNet } from "../transport/host_port.ts";
import { tcpUpstream } from "./tcp.ts";
import {
  close,
  isAnswerTo,
  isTruncated,
  Life,
  parseServer,
  type Upstream,
  withRandomId,
} from "./upstream.ts";

// Implementation
/** Initial retransmission interval, doubled each time (milliseconds). */
const RESEND_INTERVAL = 800;
/** Maximum age of a socket that was opened ahead (milliseconds). */
const MAX_SOCKET_AGE = 10_000;

/**
 * Upstream over UDP, with its own socket and port for each query; over TCP if a response was truncated. A response must
 * come from the server's address and port, with the query's random id and question (RFC 5452).
 *
 * **Limits**: no DNS cookies (RFC 7873): an attacker who sees the queries can forge responses. While a tunnel is busy, Deno
 * polls its sockets every 16 ms or less often: a response takes at least that long.
 *
 * @param server `192.0.2.1`, `192.0.2.1:53`, `2001:db8::1`, `[2001:db8::1]:53`.
 * @throws {SyntaxError} when it has another form; `Deno.errors.NotCapable` without `--allow-net`.
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
      const answer = await exchange(withRandomId(message), sockets.take(), port, bound);
      return isTruncated(answer) ? await tcp.query(message, bound) : answer;
    },
    [Symbol.dispose]() {
      life.end();
      sockets[Symbol.dispose]();
      tcp[Symbol.dispose]();
    },
  };
}

/** Socket that is connected to the server, or connecting. */
interface Opening {
  readonly socket: Socket;
  readonly opened: Promise<void>;
  readonly since: number;
}

/**
 * Sockets to the server, one of which is opened ahead: while a loop is busy, each step of opening waits for a turn.
 * Queries took 60 to 770 ms without it, and mostly 20 to 60 ms with it.
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
    // A socket keeps the source address of its opening, which may have changed since.
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

/** Sends a query until a response or the signal arrives; closes the socket. */
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
    // A connected socket receives from the server alone; the port is checked for systems that do not enforce it.
    if (from.port === port && isAnswerTo(query, message)) resolve(Uint8Array.from(message));
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
