/** Common base of the UDP and TCP views: both headers start with two ports. */

import * as field from "./header_fields.ts";
import { TransportView } from "./transport_view.ts";

// Specification: RFC 768, RFC 9293 section 3.1
const { SRC_PORT, DST_PORT } = field;

/** Transport header that starts with two ports. */
export abstract class PortsView extends TransportView {
  /** Source port; 0 in UDP if no reply is expected. */
  get srcPort(): number {
    return this.packet.view.getUint16(this.start + SRC_PORT);
  }
  set srcPort(value: number) {
    this.setWord(SRC_PORT, value);
  }

  /** Destination port. */
  get dstPort(): number {
    return this.packet.view.getUint16(this.start + DST_PORT);
  }
  set dstPort(value: number) {
    this.setWord(DST_PORT, value);
  }

  /** Swaps the ports. The checksum stays valid: it does not depend on the order of words. */
  swapPorts(): void {
    const { view } = this.packet;
    const srcPort = view.getUint16(this.start + SRC_PORT);
    view.setUint16(this.start + SRC_PORT, view.getUint16(this.start + DST_PORT));
    view.setUint16(this.start + DST_PORT, srcPort);
  }
}
