/** Which ICMP messages ask and answer, with an identifier by which one knows the other (RFC 792, RFC 4443 section 4). */

import { Icmpv4 } from "./icmpv4.ts";
import { Icmpv6 } from "./icmpv6.ts";

/** Whether a message of this type, in this version of IP, asks for an answer. */
export function isQuestion(version: number, type: number): boolean {
  return version === 4
    ? type === Icmpv4.EchoRequest || type === Icmpv4.TimestampRequest
    : type === Icmpv6.EchoRequest;
}

/** Whether it is the answer to one. */
export function isAnswer(version: number, type: number): boolean {
  return version === 4
    ? type === Icmpv4.EchoReply || type === Icmpv4.TimestampReply
    : type === Icmpv6.EchoReply;
}
