/** Upstream that uses DNS over HTTPS (RFC 8484). */

import { requireNet } from "../transport/host_port.ts";
import { Life, type Upstream } from "./upstream.ts";

// Specification: RFC 8484 section 6
const MEDIA_TYPE = "application/dns-message";
const MAX_MESSAGE = 0xffff;

/**
 * Creates an upstream over HTTPS, which sends each query as a POST request. Requests share the connections of `fetch`.
 *
 * **Limits**: the system resolves a host name in the URL. If the system itself uses this resolver, write an address. If
 * a name has several addresses, `fetch` tries the next when one refuses the connection, not when one does not respond.
 *
 * @param url URL such as `https://192.0.2.1/dns-query`.
 * @throws {SyntaxError} when `url` is not an HTTPS or HTTP URL.
 * @throws {Deno.errors.NotCapable} without `--allow-net`.
 *
 * @example
 * ```ts no-eval
 * import { decodeMessage, encodeMessage } from "@warren/tunnel/dns";
 * import { dohUpstream } from "@warren/tunnel/dns_upstream";
 *
 * using upstream = dohUpstream("https://192.0.2.1/dns-query");
 * const query = encodeMessage({ questions: [{ name: "www.example.com", type: "A" }] });
 * console.log(decodeMessage(await upstream.query(query, AbortSignal.timeout(2000)))?.answers);
 * ```
 */
export function dohUpstream(url: string): Upstream {
  const parsed = URL.parse(url);
  if (parsed === null || !/^https?:$/.test(parsed.protocol)) {
    throw new SyntaxError(
      `Cannot parse upstream: url must be an HTTPS URL, got "${url}": write https://192.0.2.1/dns-query`,
    );
  }
  requireNet(parsed.host);
  const name = `${parsed.origin}${parsed.pathname}`;
  const life = new Life(name);
  return {
    name,
    async query(message, signal) {
      const response = await fetch(parsed, {
        method: "POST",
        headers: { "content-type": MEDIA_TYPE, accept: MEDIA_TYPE },
        body: Uint8Array.from(message),
        redirect: "error",
        signal: life.bound(signal),
      });
      const type = response.headers.get("content-type")?.split(";")[0]?.trim().toLowerCase();
      if (!response.ok || type !== MEDIA_TYPE) {
        await response.body?.cancel();
        throw new Error(`Cannot query ${name}: the response has status ${response.status} and type ${type}`);
      }
      return await read(response.body);
    },
    [Symbol.dispose]: () => life.end(),
  };
}

/** Reads a body. @throws {Error} when it is longer than a DNS message can be. */
async function read(body: ReadableStream<Uint8Array> | null): Promise<Uint8Array> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  for await (const chunk of body ?? []) {
    length += chunk.length;
    if (length > MAX_MESSAGE) {
      throw new Error(`Cannot read a response: it is longer than ${MAX_MESSAGE} bytes`);
    }
    chunks.push(Uint8Array.from(chunk));
  }
  return await new Blob(chunks).bytes();
}
