/**
 * Warren: a scriptable layer-3 tunnel. A script opens a tunnel and decides what happens to each packet.
 *
 * @module
 */

export {
  type Device,
  Direction,
  ENDPOINT_LENGTH,
  type FlowStats,
  type Packet,
  type PacketBatch,
  type PacketHandler,
  type Stage,
  type StageContext,
  type TunnelEnd,
  type TunnelStats,
  Verdict,
  type WorkerPlace,
} from "../lib/core/mod.ts";
export type { VpnProtocol } from "../lib/vpn/protocol.ts";
export { copy } from "../lib/split/copy.ts";
export type { DeviceOptions, RouteOptions, RuleOptions } from "../driver/mod.ts";
export { openTunnel } from "./tunnel/open_tunnel.ts";
export { Tunnel } from "./tunnel/tunnel.ts";
export type { TunnelOptions } from "./tunnel/tunnel_options.ts";
export type {
  BooleanFlag,
  FlagValue,
  FlagValues,
  GivenArguments,
  ScriptArguments,
  ScriptFlag,
  ScriptFlags,
  ValueFlag,
} from "./script/script_flags.ts";
export {
  script,
  type ScriptOptions,
  type TunnelScript,
  type TunnelsOptions,
  type TunnelsScript,
} from "./script/script.ts";
export type { EndOpener, FarEndContext } from "./transport/end_opener.ts";
export { device } from "./transport/device.ts";
export { switchboard } from "./transport/switchboard.ts";
export { udp, type UdpOptions } from "./transport/udp.ts";
export { UdpTransport } from "./transport/udp_transport.ts";
export { vpn, type VpnOptions, type VpnProtocolSource } from "./vpn/vpn.ts";
export { sealed, type SealedEndOptions } from "./vpn/sealed.ts";
export { VpnEnd } from "./vpn/vpn_end.ts";
export { websocket, type WebSocketOptions } from "./transport/websocket.ts";
export { WebSocketTransport } from "./transport/websocket_transport.ts";
