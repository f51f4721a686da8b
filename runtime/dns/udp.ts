/**
 * A name server over UDP.
 *
 *     query ──► random id, a socket of its own ──► sent, and sent again ═══► server
 *     answer ◄── the query's id, question and server? ◄════════════════════════┘
 *          └── cut: asked again over TCP
 */

import { createSocket, type Socket } from "node:dgram";
import { formatHostPort, requireNet } from "../transport/_host_port.ts";
import { tcpUpstream } from "./tcp.ts";
import { isAnswerTo, isTruncated, Life, parseServer, type Upstream, withRandomId } from "./upstream.ts";

// Implementation
/** When a query is sent again, and once more after twice as long (milliseconds). */
const RESEND = 800;

/**
 * Asks a name server over UDP, from a socket and port of its own for each query, and over TCP where an answer was cut. An
 * answer is taken from that address and port alone, with the query's random id and its question (RFC 5452).
 *
 * **Limits**: no cookies (RFC 7873): whoever can watch the road can forge answers. A server has to know EDNS (RFC 6891): where
 * a query is answered with FORMERR for it, none is sent without.
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
  return {
    name,
    async query(message, signal) {
      const bound = life.bound(signal);
      const answer = await exchange(withRandomId(message), host, port, family, bound);
      return isTruncated(answer) ? await tcp.query(message, bound) : answer;
    },
    [Symbol.dispose]() {
      life.end();
      tcp[Symbol.dispose]();
    },
  };
}

/** Sends a query until its answer comes, or the signal. */
function exchange(
  query: Uint8Array,
  host: string,
  port: number,
  family: 4 | 6,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  if (signal.aborted) return Promise.reject(signal.reason);
  const socket = createSocket(family === 4 ? "udp4" : "udp6");
  let timer: ReturnType<typeof setTimeout> | undefined;
  const send = (wait: number): void => {
    socket.send(query);
    timer = setTimeout(() => send(wait * 2), wait);
  };
  const end = (): void => reject(signal.reason);
  signal.addEventListener("abort", end, { once: true });
  socket.on("error", reject);
  socket.on("message", (message, from) => {
    // The system lets pass what comes from the server alone; where it does not, this does.
    if (from.port === port && isAnswerTo(query, message)) resolve(Uint8Array.from(message));
  });
  socket.connect(port, host, () => send(RESEND));
  return promise.finally(() => {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
    close(socket);
  });
}

function close(socket: Socket): void {
  try {
    socket.close();
  } catch {
    // It never opened.
  }
}
