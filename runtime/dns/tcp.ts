/** A name server over TCP: a connection for each query, which has its length in front (RFC 1035 section 4.2.2). */

import { formatHostPort, requireNet } from "../transport/host_port.ts";
import { isAnswerTo, Life, parseServer, type Upstream, withRandomId } from "./upstream.ts";

// Specification
const LENGTH = 2;

/**
 * Asks a name server over TCP.
 *
 * **Limits**: each query has a connection of its own, which takes a round trip more.
 *
 * @param server `192.0.2.1`, `192.0.2.1:53`, `2001:db8::1`, `[2001:db8::1]:53`.
 * @throws {SyntaxError} when it is anything else; `Deno.errors.NotCapable` without `--allow-net`.
 *
 * @example
 * ```ts
 * import { tcpUpstream } from "@warren/tunnel/dns_upstream";
 *
 * using upstream = tcpUpstream("[2001:db8::1]:53");
 * console.assert(upstream.name === "tcp [2001:db8::1]:53");
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
        const answer = await read(connection, length);
        if (!isAnswerTo(query, answer)) {
          throw new Error(`Cannot use an answer of ${name}: it is to another query`);
        }
        return answer;
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
    if (count === null) throw new Error("Cannot read an answer: the connection was closed");
    done += count;
  }
  return bytes;
}

function close(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch {
    // It is closed.
  }
}
