/** HTTP proxies that connect to servers (CONNECT, RFC 9110 section 9.3.6): often the only way out of a network. */

import { ProxyError } from "./_connecting_error.ts";
import { formatHostPort, type HostPort, urlHostPort } from "./host_port.ts";
import { readHead, statusOf, writeText } from "./_http_head.ts";

// Implementation
/** Hosts that are this machine. */
const LOOPBACK = /^(localhost|.*\.localhost|127\..*|\[::1\])$/;

/** One proxy. */
export class HttpProxy implements HostPort {
  /** An address or a name. */
  readonly host: string;
  /** The address family of `host`; `undefined` for a name. */
  readonly family: 4 | 6 | undefined;
  /** The port. */
  readonly port: number;
  readonly #credentials: string | undefined;

  /**
   * A proxy at `http://HOST:PORT`, or `http://USER:PASSWORD@HOST:PORT`.
   *
   * @param subject The option or variable that says so.
   * @throws {SyntaxError} when it is at anything else.
   */
  constructor(text: string, subject = "proxy") {
    const url = URL.parse(text);
    // A password may be in it.
    if (url?.protocol !== "http:" || url.hostname === "" || url.port === "0") {
      throw new SyntaxError(
        `Cannot parse ${subject}: it must be http://HOST:PORT: HTTPS and SOCKS are not supported`,
      );
    }
    ({ host: this.host, port: this.port, family: this.family } = urlHostPort(url, 80));
    const { username, password } = url;
    if (username !== "") {
      const text = `${decode(username, subject)}:${decode(password, subject)}`;
      this.#credentials = new TextEncoder().encode(text).toBase64();
    }
  }

  /** Has a connection to the proxy lead to a server from then on. */
  async connect(socket: Deno.Conn, server: HostPort): Promise<void> {
    const place = formatHostPort(server.host, server.port);
    const authorization = this.#credentials === undefined
      ? ""
      : `Proxy-Authorization: Basic ${this.#credentials}\r\n`;
    await writeText(socket, `CONNECT ${place} HTTP/1.1\r\nHost: ${place}\r\n${authorization}\r\n`);
    const head = await readHead(socket);
    const status = statusOf(head) ?? 0;
    // The server says nothing before it is asked: what follows the head would be the proxy's.
    if (status >= 200 && status < 300 && head.rest.length === 0) return;
    throw this.error(`answered ${head.start}`);
  }

  /** The error for what it does instead of connecting. */
  error(what: string, options?: ErrorOptions): ProxyError {
    return new ProxyError(formatHostPort(this.host, this.port), what, options);
  }
}

function decode(text: string, subject: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // Without the text, which may be a password.
    throw new SyntaxError(
      `Cannot parse ${subject}: its user name or password has a "%" that encodes nothing: write "%25" for "%"`,
    );
  }
}

/**
 * The proxy that the environment names for a server, as curl(1) reads it.
 *
 * @param read Returns a variable. @default the process's, where `--allow-env` lets that be read
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
