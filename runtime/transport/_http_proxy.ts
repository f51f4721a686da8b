/** Connections through HTTP proxies (CONNECT, RFC 9110 section 9.3.6). */

import { ProxyError } from "./_connecting_error.ts";
import { formatHostPort, type HostPort, urlHostPort } from "./host_port.ts";
import { readHead, statusOf, writeText } from "./_http_head.ts";

// Implementation
/** Hosts on the loopback interface, which never need a proxy. */
const LOOPBACK = /^(localhost|.*\.localhost|127\..*|\[::1\])$/;

/** An HTTP proxy. */
export class HttpProxy implements HostPort {
  readonly host: string;
  readonly family: 4 | 6 | undefined;
  readonly port: number;
  readonly #credentials: string | undefined;

  /**
   * Parses `http://HOST:PORT` or `http://USER:PASSWORD@HOST:PORT`.
   *
   * @param subject Option or variable that the text comes from, for errors.
   * @throws {SyntaxError} for any other text.
   */
  constructor(text: string, subject = "proxy") {
    const url = URL.parse(text);
    // The message omits the text, which may contain a password.
    if (url?.protocol !== "http:" || url.hostname === "" || url.port === "0") {
      throw new SyntaxError(
        `Cannot parse ${subject}: it must be http://HOST:PORT; HTTPS and SOCKS are not supported`,
      );
    }
    ({ host: this.host, port: this.port, family: this.family } = urlHostPort(url, 80));
    const { username, password } = url;
    if (username !== "") {
      const text = `${decode(username, subject)}:${decode(password, subject)}`;
      this.#credentials = new TextEncoder().encode(text).toBase64();
    }
  }

  /** Asks the proxy to connect an open connection to a server. @throws {ProxyError} when the proxy does not. */
  async connect(socket: Deno.Conn, server: HostPort): Promise<void> {
    const place = formatHostPort(server.host, server.port);
    const authorization = this.#credentials === undefined
      ? ""
      : `Proxy-Authorization: Basic ${this.#credentials}\r\n`;
    await writeText(socket, `CONNECT ${place} HTTP/1.1\r\nHost: ${place}\r\n${authorization}\r\n`);
    const head = await readHead(socket);
    const status = statusOf(head) ?? 0;
    // The server sends nothing before the handshake, so bytes after the head come from the proxy.
    if (status >= 200 && status < 300 && head.rest.length === 0) return;
    throw this.error(`answered ${head.start}`);
  }

  /** Creates an error about the proxy. @param fault See {@linkcode ProxyError}. */
  error(fault: string, options?: ErrorOptions): ProxyError {
    return new ProxyError(formatHostPort(this.host, this.port), fault, options);
  }
}

function decode(text: string, subject: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // The message omits the text, which may be a password.
    throw new SyntaxError(
      `Cannot parse ${subject}: its user name and password must be percent-encoded: write "%25" for "%"`,
    );
  }
}

/**
 * Returns the proxy that the environment sets for a server, with the rules of curl(1); `undefined` for none.
 *
 * @param read Returns the value of a variable. @default {reads the environment, as far as `--allow-env` permits}
 */
export function proxyOf(
  { protocol, hostname }: URL,
  read: (name: string) => string | undefined = readEnvironment,
): HttpProxy | undefined {
  if (LOOPBACK.test(hostname)) return undefined;
  const excluded = read("NO_PROXY")?.split(",").map((name) => name.trim().replace(/^\*?\./, "")) ?? [];
  const isExcluded = (name: string) => name === "*" || name !== "" && `.${hostname}`.endsWith(`.${name}`);
  if (excluded.some(isExcluded)) return undefined;
  for (const variable of [protocol === "wss:" ? "HTTPS_PROXY" : "HTTP_PROXY", "ALL_PROXY"]) {
    const text = read(variable);
    if (text !== undefined) return new HttpProxy(text.includes("://") ? text : `http://${text}`, variable);
  }
  return undefined;
}

function readEnvironment(name: string): string | undefined {
  for (const variable of [name.toLowerCase(), name]) {
    if (Deno.permissions.querySync({ name: "env", variable }).state !== "granted") continue;
    const value = Deno.env.get(variable);
    if (value !== undefined && value !== "") return value;
  }
  return undefined;
}
