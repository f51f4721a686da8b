#!/usr/bin/env -S deno run --allow-ffi --allow-net
/** Joins two machines over WebSocket. Try: websocket.ts on 192.0.2.1, websocket.ts --address 10.9.0.2/24 --far ws://192.0.2.1:8080/ on the other; there ping 10.9.0.1 */
// Whoever can connect is the peer: for TLS and a secret path put a proxy before it, and connect to wss://.
import { script, websocket } from "@warren/tunnel";

const options = { address: "10.9.0.1/24", far: websocket({ listen: 8080 }) };

export default script(import.meta, options, (tunnel) => tunnel.run());
