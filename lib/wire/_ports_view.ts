/** What the views of UDP and TCP share: both headers start with the ports. */

import * as field from "./header_fields.ts";
import { TransportView } from "./transport_view.ts";

// Specification: RFC 768, RFC 9293 section 3.1
const { SRC_PORT, DST_PORT } = field;

/** A transport header that starts with two ports, seen in place. */
export abstract class PortsView extends TransportView {
  /** The sender's port; in UDP 0 when it wants no answer. */
  get srcPort(): number {
    return this.packet.view.getUint16(this.start + SRC_PORT);
  }
  set srcPort(value: number) {
    this.setWord(SRC_PORT, value);
  }

  /** The receiver's port. */
  get dstPort(): number {
    return this.packet.view.getUint16(this.start + DST_PORT);
  }
  set dstPort(value: number) {
    this.setWord(DST_PORT, value);
  }

  /** Exchanges the ports. The checksum does not change: a sum does not depend on the order of its words. */
  swapPorts(): void {
    const { view } = this.packet;
    const srcPort = view.getUint16(this.start + SRC_PORT);
    view.setUint16(this.start + SRC_PORT, view.getUint16(this.start + DST_PORT));
    view.setUint16(this.start + DST_PORT, srcPort);
  }
}
