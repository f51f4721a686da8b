/** A UDP transport with a loop of the test's. */

import { strictEqual } from "node:assert/strict";
import { PacketBatch } from "../../lib/core/mod.ts";
import type { UdpTransport } from "../../runtime/transport/udp_transport.ts";
import { numbered } from "../conformance/end.ts";
import { TestHost } from "./host.ts";

/** A transport, and what it is attached to. */
export interface AttachedUdp extends AsyncDisposable {
  /** The transport. */
  readonly end: UdpTransport;
  /** The host that it is attached to. */
  readonly host: TestHost;
}

/** Opens a transport and attaches it. When it is closed, every packet must be back in its pool. */
export async function attachUdp(opener: () => UdpTransport | Promise<UdpTransport>): Promise<AttachedUdp> {
  const end = await opener();
  const host = new TestHost();
  end.attach(host);
  return {
    end,
    host,
    async [Symbol.asyncDispose]() {
      end.close();
      await end.closed;
      strictEqual(host.pool.taken, 0);
    },
  };
}

/** Writes a packet with a number, which the end takes. */
export function writeNumbered({ end, host }: Pick<AttachedUdp, "end" | "host">, number: number): void {
  const batch = new PacketBatch();
  batch.push(numbered(host.pool, number));
  strictEqual(end.write(batch), 1);
}

/** A transport's port. */
export function udpPort({ end }: AttachedUdp): string {
  return end.local!.split(":").at(-1)!;
}
