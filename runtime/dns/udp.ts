/**
 * A name server over UDP.
 *
 *     query ──► random id, a socket of its own ──► sent, and sent again ═══► server
 *     answer ◄── the query's id, question and server? ◄════════════════════════┘
 *          └── cut: asked again over TCP
 */

import { createSocket, type Socket } from "node:dgram";
import { formatHostPort, requireNet } from "../transport/host_port.ts";
import { tcpUpstream } from "./tcp.ts";
import { isAnswerTo, isTruncated, Life, parseServer, type Upstream, withRandomId } from "./upstream.ts";

// Implementation
/** When a query is sent again, and once more after twice as long (milliseconds). */
const RESEND = 800;
/** How long a socket may wait for its query (milliseconds). */
const FRESH = 10_000;

/**
 * Asks a name server over UDP, from a socket and port of its own for each query, and over TCP where an answer was cut. An
 * answer is taken from that address and port alone, with the query's random id and its question (RFC 5452).
 *
 * **Limits**: no cookies (RFC 7873): an attacker who sees the queries can forge answers. Beside a busy tunnel, Deno looks
 * at its sockets every 16 ms or later: an answer takes that long at least.
 *
 * @param server `192.0.2.1`, `192.0.2.1:53`, `2001:db8::1`, `[2001:db8::1]:53`.
 * @throws {SyntaxError} when it is anything else; `Deno.errors.NotCapable` without `--allow-net`.
 *
 * @example
 * ```ts
 * import { DnsResolver } from "@warren/tunnel/dns";
 * import { udpUpstream } from "@warren/tunnel/dns_upstream";
 *
 * const resolver = new DnsResolver({ address: "10.9.0.53", upstream: udpUpstream("192.0.2.1:53") });
 * void resolver;
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

/** A socket that leads to the server, or will. */
interface Opening {
  readonly socket: Socket;
  readonly opened: Promise<void>;
  readonly since: number;
}

/**
 * Sockets that lead to the server. One is opened ahead: beside a busy loop each step of it waits for a turn, and a query
 * took 60 to 770 ms, with one ahead mostly 20 to 60 ms.
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

  /** One that nobody has used. */
  take(): Opening {
    const ahead = this.#ahead;
    this.#ahead = this.#open();
    if (ahead === undefined) return this.#open();
    // It leaves by the address that this machine had then.
    if (performance.now() - ahead.since < FRESH) return ahead;
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
    // Whoever takes it is told; nobody else cares.
    promise.catch(() => {});
    socket.on("error", reject);
    socket.connect(this.#port, this.#host, () => {
      resolve();
      if (this.#isClosed) close(socket);
    });
    return { socket, opened: promise, since: performance.now() };
  }
}

/** Sends a query until its answer comes, or the signal; closes the socket. */
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
    // The system lets pass what comes from the server alone; where it does not, this does.
    if (from.port === port && isAnswerTo(query, message)) resolve(Uint8Array.from(message));
  });
  opened.then(() => signal.aborted || send(RESEND), reject);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
    close(socket);
  }
}

function close(socket: Socket): void {
  try {
    socket.close();
  } catch {
    // It never opened.
  }
}
