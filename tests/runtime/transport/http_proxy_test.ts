/** WebSockets through an HTTP proxy, and the choice of the proxy. Needs --allow-net. */

import { deepStrictEqual, rejects, strictEqual, throws } from "node:assert/strict";
import { PacketBatch } from "../../../lib/core/mod.ts";
import { HttpProxy, proxyOf } from "../../../runtime/transport/_http_proxy.ts";
import { websocket } from "../../../runtime/transport/websocket.ts";
import { pattern, receive } from "../../conformance/end.ts";
import { TestHost, until } from "../../kit/host.ts";
import { RawPeer } from "../../kit/raw_websocket.ts";

Deno.test("websocket({ proxy }) has the proxy connect to the server, whose name is the proxy's to look up", async () => {
  const server = await websocket({ listen: "127.0.0.1:0" })();
  const serverHost = new TestHost();
  server.attach(serverHost);
  const port = Number(new URL(`tcp://${server.local}`).port);
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const proxying = listener.accept().then(async (socket) => {
    const head = await new RawPeer(socket).head();
    using onward = await Deno.connect({ hostname: "127.0.0.1", port });
    await socket.write(new TextEncoder().encode("HTTP/1.1 200 Connection established\r\n\r\n"));
    await Promise.allSettled([
      socket.readable.pipeTo(onward.writable),
      onward.readable.pipeTo(socket.writable),
    ]);
    return head;
  });
  const client = await websocket({
    url: `ws://warren.invalid:${port}/`,
    proxy: `http://user:pass%20word@127.0.0.1:${listener.addr.port}`,
  })();
  const host = new TestHost();
  client.attach(host);
  await until(() => server.connected, "it was connected");
  const batch = new PacketBatch();
  batch.push(host.pool.from(pattern(1400))!);
  client.write(batch);
  deepStrictEqual(await receive(server, serverHost, 1), [pattern(1400)]);
  client.close();
  server.close();
  await Promise.all([client.closed, server.closed]);
  strictEqual(
    await proxying,
    `CONNECT warren.invalid:${port} HTTP/1.1\r\nHost: warren.invalid:${port}\r\n` +
      "Proxy-Authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n\r\n",
  );
  strictEqual(host.pool.taken, 0);
});

Deno.test("websocket() names the proxy that refuses to connect", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const serving = listener.accept().then(async (socket) => {
    using peer = new RawPeer(socket);
    await peer.head();
    await peer.send("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
  });
  const { port } = listener.addr;
  await rejects(websocket({ url: "wss://warren.invalid/", proxy: `http://127.0.0.1:${port}` })(), {
    message:
      `Cannot connect to wss://warren.invalid/: the proxy 127.0.0.1:${port} answered HTTP/1.1 407 Proxy ` +
      "Authentication Required: check the proxy, and whether it allows connections to this port",
  });
  await serving;
});

Deno.test("websocket() names the proxy that cannot be reached", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  await rejects(websocket({ url: "ws://warren.invalid/", proxy: `http://127.0.0.1:${port}` })(), {
    message:
      `Cannot connect to ws://warren.invalid/: the proxy 127.0.0.1:${port} cannot be reached (Connection refused ` +
      "(os error 111)): check the proxy, and whether it allows connections to this port",
  });
  await rejects(websocket({ url: "ws://127.0.0.1:1/", proxy: "http://warren.invalid:3128" })(), {
    message: /^Cannot connect to ws:\/\/127\.0\.0\.1:1\/: the proxy warren\.invalid:3128 cannot be reached /,
  });
});

Deno.test("proxyOf() names the variable that does not parse", () => {
  const found = (value: string) =>
    proxyOf(new URL("wss://a/"), (name) => name === "ALL_PROXY" ? value : undefined);
  throws(() => found("socks5://127.0.0.1:1080"), {
    name: "SyntaxError",
    message: "Cannot parse ALL_PROXY: it must be http://HOST:PORT; HTTPS and SOCKS are not supported",
  });
  throws(() => found("http://user:100%@host:3128"), {
    name: "SyntaxError",
    message:
      'Cannot parse ALL_PROXY: its user name and password must be percent-encoded: write "%25" for "%"',
  });
});

Deno.test("proxyOf() reads the environment as curl does, and leaves this machine out", () => {
  const environment: Record<string, string> = {
    HTTPS_PROXY: "http://secure.example:3128",
    HTTP_PROXY: "plain.example",
    NO_PROXY: "inside.example, .corp.example,192.0.2.1,",
  };
  const found = (url: string) => {
    const proxy = proxyOf(new URL(url), (name) => environment[name]);
    return proxy && `${proxy.host}:${proxy.port}`;
  };
  strictEqual(found("wss://vpn.example/"), "secure.example:3128");
  strictEqual(found("ws://vpn.example/"), "plain.example:80");
  for (const host of ["inside.example", "vpn.corp.example", "192.0.2.1", "localhost", "127.0.0.1", "[::1]"]) {
    strictEqual(found(`wss://${host}/`), undefined, host);
  }
  strictEqual(found("wss://notinside.example/"), "secure.example:3128");
  delete environment.HTTPS_PROXY;
  strictEqual(found("wss://vpn.example/"), undefined);
  environment.ALL_PROXY = "http://all.example:8080";
  strictEqual(found("wss://vpn.example/"), "all.example:8080");
  environment.NO_PROXY = "*";
  strictEqual(found("wss://vpn.example/"), undefined);
});

Deno.test("HttpProxy takes http: only, and its errors show no password", () => {
  for (
    const text of [
      "socks5://user:secret@host:1080",
      "https://user:secret@host",
      "host:3128",
      "http://host:0",
      "",
    ]
  ) {
    throws(() => new HttpProxy(text), {
      name: "SyntaxError",
      message: "Cannot parse proxy: it must be http://HOST:PORT; HTTPS and SOCKS are not supported",
    });
  }
  throws(() => websocket({ listen: 0, proxy: "http://host" }), TypeError);
});
