/** The transports give the guarantees of every end, over loopback. Needs --allow-ffi and --allow-net. */

import { udp } from "../../runtime/transport/udp.ts";
import { websocket } from "../../runtime/transport/websocket.ts";
import { vpn } from "../../runtime/vpn/vpn.ts";
import { VpnEnd } from "../../runtime/vpn/vpn_end.ts";
import { cable } from "../kit/cable.ts";
import { until } from "../kit/host.ts";
import { Seal, SEAL_OVERHEAD } from "../kit/seal.ts";
import { openSockets } from "../kit/sockets.ts";
import { endConformance, type EndPair } from "./end.ts";

await openSockets();

for (const [host, mtu] of [["127.0.0.1", 1500], ["[::1]", 9000]] as const) {
  endConformance(`UdpTransport over ${host}`, async (): Promise<EndPair> => {
    // Each must know the other's port, so one is opened to find a free one.
    const scout = await udp({ listen: `${host}:0` })();
    const place = scout.local!;
    scout.close();
    await scout.closed;
    const one = await udp({ peer: place, listen: `${host}:0`, mtu })();
    const [near, far] = cable(one, await udp({ peer: one.local!, listen: place, mtu })());
    return {
      near,
      far,
      mtu,
      least: 20,
      failsWithPeer: false,
      gone: () => Promise.all([near.closed, far.closed]),
    };
  });
}

endConformance("VpnEnd over UdpTransport", async (): Promise<EndPair> => {
  const scout = await udp({ listen: "127.0.0.1:0" })();
  const place = scout.local!;
  scout.close();
  await scout.closed;
  const one = await udp({ peer: place, listen: "127.0.0.1:0", payload: "any" })();
  const over = udp({ peer: one.local!, listen: place });
  const [near, far] = cable(new VpnEnd(new Seal(7, false), one), await vpn(new Seal(7, false), { over })());
  const gone = () => Promise.all([near.closed, far.closed]);
  return { near, far, mtu: one.mtu - SEAL_OVERHEAD, failsWithPeer: false, gone };
});

endConformance("VpnEnd over WebSocketTransport", async () => {
  const server = await websocket({ listen: "127.0.0.1:0", payload: "any" })();
  const client = await websocket({ url: `ws://${server.local}/`, retryAfter: 1, payload: "any" })();
  const [near, far] = [client, server].map((end) => new VpnEnd(new Seal(7, false), end)) as [VpnEnd, VpnEnd];
  return { ...pairOf(client, server), near, far, mtu: 65_535 - SEAL_OVERHEAD, least: 1 };
});

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
    least: 20,
    failsWithPeer: false,
    ready: () => until(() => near.connected && far.connected, "both sides were connected"),
    gone: () => Promise.all([near.closed, far.closed]),
  };
}
