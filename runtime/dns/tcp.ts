/** Upstream that uses DNS over TCP, where a length precedes each message (RFC 1035 section 4.2.2). */

import { formatHostPort, requireNet } from "../transport/host_port.ts";
import { close, isResponseTo, Life, parseServer, type Upstream, withRandomId } from "./upstream.ts";

// Specification
const LENGTH = 2;

/**
 * Creates an upstream over TCP.
 *
 * **Limits**: each query opens a connection, which takes an extra round trip.
 *
 * @param server Address, such as `192.0.2.1`, `192.0.2.1:53`, `2001:db8::1` or `[2001:db8::1]:53`.
 * @throws {SyntaxError} when `server` has a different form.
 * @throws {Deno.errors.NotCapable} without `--allow-net`.
 *
 * @example
 * ```ts no-eval
 * import { decodeMessage, encodeMessage } from "@warren/tunnel/dns";
 * import { tcpUpstream } from "@warren/tunnel/dns_upstream";
 *
 * using upstream = tcpUpstream("[2001:db8::1]:53");
 * const query = encodeMessage({ questions: [{ name: "www.example.com", type: "A" }] });
 * console.log(decodeMessage(await upstream.query(query, AbortSignal.timeout(2000)))?.answers);
 * ```
 */
export function tcpUpstream(server: string): Upstream {
  const { host, port } = parseServer(server);
  const place = formatHostPort(host, port);
  requireNet(place);
  const name = `tcp ${place}`;
  const life = new Life(name);
  return {
    name,
    async query(message, signal) {
      const bound = life.bound(signal);
      using connection = await Deno.connect({ hostname: host, port, signal: bound });
      bound.throwIfAborted();
      const query = withRandomId(message);
      const abort = (): void => close(connection);
      bound.addEventListener("abort", abort, { once: true });
      try {
        const sent = new Uint8Array(LENGTH + query.length);
        new DataView(sent.buffer).setUint16(0, query.length);
        sent.set(query, LENGTH);
        for (let done = 0; done < sent.length;) done += await connection.write(sent.subarray(done));
        const length = new DataView((await read(connection, LENGTH)).buffer).getUint16(0);
        const response = await read(connection, length);
        if (!isResponseTo(query, response)) {
          throw new Error(`Cannot query ${name}: the response belongs to another query`);
        }
        return response;
      } catch (error) {
        bound.throwIfAborted();
        throw error;
      } finally {
        bound.removeEventListener("abort", abort);
      }
    },
    [Symbol.dispose]: () => life.end(),
  };
}

async function read(connection: Deno.Conn, length: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length;) {
    const count = await connection.read(bytes.subarray(done));
    if (count === null) throw new Error("Cannot read a response: the connection was closed");
    done += count;
  }
  return bytes;
}
