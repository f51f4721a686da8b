/** A VPN end gives the guarantees of every end. */

import { Sealed } from "@warren/tunnel/vpn";
import { openCryptography } from "../../driver/crypto/mod.ts";
import { MemoryDevice } from "../../driver/memory.ts";
import { VpnEnd } from "../../runtime/vpn/vpn_end.ts";
import { AnyPayload } from "../kit/any_payload.ts";
import { Seal, SEAL_OVERHEAD } from "../kit/seal.ts";
import { endConformance } from "./end.ts";

endConformance("VpnEnd over a MemoryDevice", () => {
  const pair = MemoryDevice.pair({ mtu: 9000, queueLength: 100, payload: "any" });
  const [near, far] = pair.map((end) => new VpnEnd(new Seal(77, false), end)) as [VpnEnd, VpnEnd];
  return { near, far, mtu: 9000 - SEAL_OVERHEAD, failsWithPeer: true, keeps: true };
});

const SEALED_OVERHEAD = 60;
const cryptography = await openCryptography();
const key = cryptography.random(new Uint8Array(32));

endConformance("VpnEnd with the sealed protocol over a MemoryDevice", () => {
  const [one, other] = MemoryDevice.pair({ mtu: 9000, queueLength: 100, payload: "any" });
  // The listening side knows the peer's address, so it need not hear from it first.
  const peer = { name: "peer", allowed: ["0.0.0.0/0", "::/0"], key, endpoint: new Uint8Array(48) };
  const connecting = new Sealed(cryptography, Date.now, { role: "connect", key, keepalive: 0 });
  const listening = new Sealed(cryptography, Date.now, { role: "listen", peers: [peer] });
  const [near, far] = [
    new VpnEnd(new AnyPayload(connecting), one),
    new VpnEnd(new AnyPayload(listening), other),
  ];
  return { near, far, mtu: 9000 - SEALED_OVERHEAD, failsWithPeer: true, keeps: true };
});
