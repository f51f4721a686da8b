/** Interface of a VPN protocol, which a VPN end runs over another end. */

import type { Stage } from "../core/mod.ts";

/**
 * A VPN protocol: a stage that turns packets into datagrams outbound, and datagrams into packets inbound. Its clock is
 * `context.now`; its timers are in `tick`.
 *
 * **Outbound**: a packet that passes, and one emitted outbound, is a datagram for the end below. `packet.sendTo()` sets
 * its outer address; without one it goes to that end's peer. `packet.to` is the number of the peer, if a stage chose it.
 * **Inbound**: a datagram that passes, and a packet emitted inbound, is read by the tunnel. `packet.endpoint` is the
 * sender's outer address; the protocol sets `packet.from` to the number of the peer.
 * **Replies** on the wire, such as those of a handshake: `context.emit` against the direction.
 *
 * With `segmented`, it gets ordinary packets with complete checksums. Without it, it also gets super-packets and partial
 * checksums, and must segment and complete them before it encrypts: it emits the segments and ends the super-packet with
 * `context.done`.
 */
export interface VpnProtocol extends Stage {
  /**
   * Maximum number of bytes that it adds to a packet, at most 128. In its slot, each outbound packet has room for them both
   * before and after it.
   */
  readonly overhead: number;
}
