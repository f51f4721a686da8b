/**
 * VPN protocols, and what they are made of: peers, replay windows, and authenticated encryption of packets in place.
 *
 * @module
 */

export {
  type AeadName,
  type Cryptography,
  KEY_LENGTHS,
  NONCE_LENGTH,
  type NonceLayout,
  type OpeningKey,
  type SealingKey,
  TAG_LENGTH,
} from "./aead.ts";
export { Peer, PeerDrop, type PeerOptions, Peers } from "./peers.ts";
export type { VpnProtocol } from "./protocol.ts";
export { ReplayWindow } from "./replay_window.ts";
export {
  Sealed,
  SealedDrop,
  type SealedOptions,
  type SealedPeerOptions,
  type SealedRole,
} from "./sealed/sealed.ts";
