/** A name server over HTTPS (RFC 8484). */

import { requireNet } from "../transport/host_port.ts";
import { Life, type Upstream } from "./upstream.ts";

// Specification: RFC 8484 section 6
const MEDIA_TYPE = "application/dns-message";
const MAX_MESSAGE = 0xffff;

/**
 * Asks a name server over HTTPS, by POST. Queries share connections as `fetch` has them.
 *
 * **Limits**: A name in the URL is resolved by the system: where that asks this resolver, write an address. `fetch` takes
 * the name's next address when one refuses, and waits when one is silent.
 *
 * @param url Such as `https://192.0.2.1/dns-query`.
 * @throws {SyntaxError} when it is no URL of HTTP; `Deno.errors.NotCapable` without `--allow-net`.
 *
 * @example
 * ```ts
 * import { dohUpstream } from "@warren/tunnel/dns_upstream";
 *
 * using upstream = dohUpstream("https://192.0.2.1/dns-query");
 * console.assert(upstream.name === "https://192.0.2.1/dns-query");
 * ```
 */
export function dohUpstream(url: string): Upstream {
  const parsed = URL.parse(url);
  if (parsed === null || !/^https?:$/.test(parsed.protocol)) {
    throw new SyntaxError(
      `Cannot parse upstream "${url}": it is no URL of HTTPS: write one such as https://192.0.2.1/dns-query`,
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
        throw new Error(`Cannot use an answer of ${name}: it is ${response.status}, of type ${type}`);
      }
      return await read(response.body);
    },
    [Symbol.dispose]: () => life.end(),
  };
}

/** Reads no more than a message can have. */
async function read(body: ReadableStream<Uint8Array> | null): Promise<Uint8Array> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  for await (const chunk of body ?? []) {
    length += chunk.length;
    if (length > MAX_MESSAGE) throw new Error(`Cannot use an answer: it is longer than ${MAX_MESSAGE} bytes`);
    chunks.push(Uint8Array.from(chunk));
  }
  return await new Blob(chunks).bytes();
}
