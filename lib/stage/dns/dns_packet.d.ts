/** Types of the part of `dns-packet` that Warren uses; the package has none. */

import type { DnsMessage, DnsRecord } from "./codec.ts";

declare const dnsPacket: {
  encode(message: DnsMessage): Uint8Array<ArrayBuffer>;
  decode(bytes: Uint8Array): DnsMessage;
  answer: { encode(record: DnsRecord): Uint8Array<ArrayBuffer> };
};
export default dnsPacket;
