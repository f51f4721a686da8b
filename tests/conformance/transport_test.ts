/** The transports keep what every end promises, over loopback. Needs --allow-net. */

import { udp } from "../../runtime/transport/udp.ts";
import { websocket } from "../../runtime/transport/websocket.ts";
import { until } from "../kit/host.ts";
import { endConformance, type EndPair } from "./end.ts";

for (const host of ["127.0.0.1", "[::1]"]) {
  endConformance(`UdpTransport over ${host}`, async (): Promise<EndPair> => {
    // Each must know the other's port, so one is opened to find a free one.
    const scout = await udp({ listen: `${host}:0` })();
    const place = scout.local!;
    scout.close();
    await scout.closed;
    const near = await udp({ peer: place, listen: `${host}:0`, mtu: 9000 })();
    const far = await udp({ peer: near.local!, listen: place, mtu: 9000, queueLength: 100 })();
    return {
      near,
      far,
      mtu: 9000,
      failsWithPeer: false,
      overload: 250,
      gone: () => Promise.all([near.closed, far.closed]),
    };
  });
}

endConformance("WebSocketTransport, listening", async () => {
  const [client, server] = await webSocketPair();
  return pairOf(server, client);
});

endConformance("WebSocketTransport, connecting", async () => {
  const [client, server] = await webSocketPair();
  return pairOf(client, server);
});

type WebSocketEnd = Awaited<ReturnType<ReturnType<typeof websocket>>>;

async function webSocketPair(): Promise<[WebSocketEnd, WebSocketEnd]> {
  const server = await websocket({ listen: "127.0.0.1:0" })();
  const client = await websocket({ url: `ws://${server.local}/`, retryAfter: 1 })();
  return [client, server];
}

function pairOf(near: WebSocketEnd, far: WebSocketEnd): EndPair {
  return {
    near,
    far,
    mtu: 65_535,
    failsWithPeer: false,
    ready: () => until(() => near.connected && far.connected, "both sides were connected"),
    gone: () => Promise.all([near.closed, far.closed]),
  };
}
