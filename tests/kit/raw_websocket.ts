/** A WebSocket peer that does what no library does: any bytes at any time. Needs --allow-net. */

/** RFC 6455 section 5.2: opcodes, for {@linkcode frame}. */
export const CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10;

/** A frame's odd parts. */
export interface FrameParts {
  /** @default {true} */
  fin?: boolean;
  /** The reserved bits, as they stand in the first byte. @default {0} */
  reserved?: number;
  /** The masking key; `undefined`: no mask. @default {[1, 2, 3, 4]} */
  key?: readonly number[] | undefined;
  /** The length that the header announces. @default {the payload's} */
  announced?: number;
}

/** A frame as bytes. */
export function frame(
  opcode: number,
  payload: Uint8Array = new Uint8Array(0),
  parts: FrameParts = {},
): Uint8Array {
  const { fin = true, reserved = 0, announced = payload.length } = parts;
  const key = "key" in parts ? parts.key : [1, 2, 3, 4];
  const mask = key === undefined ? 0 : 0x80;
  const header = [(fin ? 0x80 : 0) | reserved | opcode];
  if (announced < 126) header.push(mask | announced);
  else if (announced < 65_536) header.push(mask | 126, announced >> 8, announced & 0xff);
  else {
    header.push(mask | 127);
    for (let shift = 7; shift >= 0; shift--) header.push(Math.floor(announced / 256 ** shift) % 256);
  }
  if (key !== undefined) header.push(...key);
  const bytes = new Uint8Array(header.length + payload.length);
  bytes.set(header);
  payload.forEach((byte, i) => bytes[header.length + i] = key === undefined ? byte : byte ^ key[i % 4]!);
  return bytes;
}

/** A received frame, without extensions. */
export interface HeardFrame {
  /** The opcode. */
  readonly opcode: number;
  /** The payload, without its mask. */
  readonly payload: Uint8Array;
}

/** One raw connection. */
export class RawPeer implements Disposable {
  readonly #socket: Deno.Conn;
  #unread: number[] = [];

  /** A peer on a connection that is there. */
  constructor(socket: Deno.Conn) {
    this.#socket = socket;
  }

  /** Connects to `ADDRESS:PORT`, and says nothing. */
  static async connect(place: string): Promise<RawPeer> {
    const { hostname, port } = new URL(`tcp://${place}`);
    return new RawPeer(await Deno.connect({ hostname, port: Number(port) }));
  }

  /** Connects and does a client's part of the handshake, with further header lines; the response's status is in `status`. */
  static async open(place: string, ...lines: string[]): Promise<RawPeer & { status: number }> {
    const peer = await RawPeer.connect(place);
    await peer.send(request("/", ...lines));
    const status = Number(/^HTTP\/1\.1 (\d+)/.exec(await peer.head())?.[1]);
    return Object.assign(peer, { status });
  }

  /** Does a server's part of the handshake on a connection. */
  static async accept(listener: Deno.Listener): Promise<RawPeer> {
    const peer = new RawPeer(await listener.accept());
    const key = /sec-websocket-key: (.*)\r/i.exec(await peer.head())?.[1];
    if (key === undefined) {
      peer[Symbol.dispose]();
      throw new Error("Cannot accept a peer: it sent no handshake");
    }
    const text = new TextEncoder().encode(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`);
    const accept = new Uint8Array(await crypto.subtle.digest("SHA-1", text)).toBase64();
    await peer.send(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        `Sec-WebSocket-Accept: ${accept}\r\n\r\n`,
    );
    return peer;
  }

  /** Sends bytes, or text as UTF-8; rejects when the other side has ended. */
  async send(bytes: Uint8Array | string): Promise<void> {
    const all = typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes;
    for (let at = 0; at < all.length;) at += await this.#socket.write(all.subarray(at));
  }

  /** Sends bytes again and again until the other side ends the connection, or `stop` says so; returns how many went. */
  async flood(bytes: Uint8Array, stop: () => boolean = () => false): Promise<number> {
    let sent = 0;
    try {
      for (; !stop(); sent += bytes.length) await this.send(bytes);
    } catch {
      // It has ended.
    }
    return sent;
  }

  /** The head of an HTTP message. */
  async head(): Promise<string> {
    let text = "";
    while (!text.endsWith("\r\n\r\n")) {
      const [byte] = await this.#read(1);
      if (byte === undefined) return text;
      text += String.fromCharCode(byte);
    }
    return text;
  }

  /** The next frame; `undefined` when the connection has ended. */
  async frame(): Promise<HeardFrame | undefined> {
    const [first, second] = await this.#read(2);
    if (second === undefined) return undefined;
    let length = second & 0x7f;
    if (length >= 126) {
      length = (await this.#read(length === 126 ? 2 : 8)).reduce((sum, byte) => sum * 256 + byte, 0);
    }
    const key = (second & 0x80) === 0 ? [0, 0, 0, 0] : await this.#read(4);
    const payload = Uint8Array.from(await this.#read(length), (byte, i) => byte ^ key[i % 4]!);
    return { opcode: first! & 0x0f, payload };
  }

  /** The code of the Close frame that comes, behind whatever else; `undefined` when there is none before the end. */
  async closeCode(): Promise<number | undefined> {
    for (let heard; (heard = await this.frame()) !== undefined;) {
      if (heard.opcode === CLOSE) return heard.payload[0]! << 8 | heard.payload[1]!;
    }
    return undefined;
  }

  /** Throws away so many bytes, as they come. */
  async skip(count: number): Promise<void> {
    const bytes = new Uint8Array(65_536);
    while (count > 0) {
      count -= await this.#socket.read(bytes.subarray(0, Math.min(count, bytes.length))) ?? count;
    }
  }

  /** Settled when the other side has ended the connection. */
  async ended(): Promise<void> {
    while ((await this.#read(1)).length > 0);
  }

  /** Sends no more, and goes on reading. */
  closeWrite(): Promise<void> {
    return this.#socket.closeWrite();
  }

  /** Closes the connection; with bytes unread, the system resets it. */
  [Symbol.dispose](): void {
    try {
      this.#socket.close();
    } catch {
      // It is closed.
    }
  }

  async #read(count: number): Promise<number[]> {
    const bytes = new Uint8Array(4096);
    while (this.#unread.length < count) {
      const read = await this.#socket.read(bytes).catch(() => null);
      if (read === null) break;
      this.#unread.push(...bytes.subarray(0, read));
    }
    return this.#unread.splice(0, count);
  }
}

/** A client's request for a WebSocket, with further header lines. */
export function request(path: string, ...lines: string[]): string {
  return [
    `GET ${path} HTTP/1.1`,
    "Host: host",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ...lines,
    "\r\n",
  ].join("\r\n");
}
