#!/usr/bin/env -S deno run --allow-ffi
/** Joins two machines by a VPN protocol of its own. Try: own_vpn.ts --key $(openssl rand -hex 32) on 192.0.2.1; on the other machine own_vpn.ts --client with the same --key, --address 10.9.0.2/24 --far udp://192.0.2.1:4500; there ping 10.9.0.1 */
// Datagram: session 8 (start time of the sender), counter 4, ciphertext, tag 16. Each session and side has its own key.
import { type Packet, script, udp, vpn } from "@warren/tunnel";
import { openCryptography } from "@warren/tunnel/cryptography";
import { type OpeningKey, Peer, ReplayWindow, type SealingKey } from "@warren/tunnel/vpn";

const [AEAD, HEADER, TAG] = ["chacha20-poly1305", 12, 16] as const;
const NONCE = { base: new Uint8Array(12), offset: 4, length: 4, isLittleEndian: true } as const;

const far = vpn(async ({ flags }) => {
  const { hkdf, openingKey, sealingKey } = await openCryptography();
  const secret = Uint8Array.fromHex(String(flags.key));
  const keyOf = (session: Uint8Array, isClient: boolean) =>
    hkdf(secret, session, Uint8Array.of(Number(isClient)), 32);
  const isClient = flags.client === true;
  const ownSession = new Uint8Array(Float64Array.of(Date.now()).buffer);
  const peer = new Peer({ name: "peer", allowed: [] });
  const window = new ReplayWindow();
  let sealing: SealingKey | undefined;
  let opening: OpeningKey | undefined;
  let newest = 0;

  /** Decrypts a datagram in place; returns false if it is forged or replayed. */
  const open = (packet: Packet): boolean => {
    const { bytes, view, offset, length } = packet;
    const session = view.getFloat64(offset, true);
    const counter = view.getUint32(offset + 8);
    const text = offset + HEADER;
    if (!(session > newest || session === newest && window.admits(counter))) return false;
    const key = session === newest
      ? opening
      : openingKey(AEAD, keyOf(bytes.slice(offset, offset + 8), !isClient), NONCE, bytes);
    if (key?.open(counter, text, length - HEADER, text, offset, HEADER) !== true) {
      if (key !== opening) key?.[Symbol.dispose]();
      return false;
    }
    if (session > newest) {
      opening?.[Symbol.dispose]();
      [opening, newest] = [key, session];
      window.reset();
    }
    if (counter > window.newest) peer.follow(packet);
    window.add(counter);
    packet.strip(HEADER);
    packet.length -= TAG;
    return true;
  };

  return {
    name: "own VPN",
    overhead: HEADER + TAG,
    segmented: true,
    outbound(batch, context) {
      for (const packet of batch) {
        const { bytes, view, offset, length } = packet;
        sealing ??= sealingKey(AEAD, keyOf(ownSession, isClient), NONCE, bytes);
        packet.prepend(HEADER);
        packet.length += TAG;
        bytes.set(ownSession, packet.offset);
        view.setUint32(packet.offset + 8, sealing.counter);
        peer.address(packet);
        if (!sealing.seal(offset, length, offset, packet.offset, HEADER)) context.drop(packet, "key used up");
      }
    },
    inbound(batch, context) {
      for (const packet of batch) if (!open(packet)) context.drop(packet, "forged or replayed");
    },
  };
}, { over: udp({ listen: 4500 }) });

const options = {
  address: "10.9.0.1/24",
  mtu: 1424,
  far,
  flags: {
    key: { type: "string", required: true, value: "HEX", description: "secret of both sides, 64 digits" },
    client: { type: "boolean", description: "the other side of the connection" },
  },
} as const;

export default script(import.meta, options, (tunnel) => tunnel.run());
