/** I/O of many packets per call, with the undocumented functions recvmsg_x and sendmsg_x of libSystem. */

import { type PacketIo, PacketVectors } from "../bsd/packet_io.ts";
import { addressOf, setAddress } from "../native_memory.ts";
import type { LibSystem } from "./libsystem.ts";

// Specification
/**
 * bsd/sys/socket_private.h: `struct msghdr_x { void *msg_name; socklen_t msg_namelen; struct iovec *msg_iov;
 * int msg_iovlen; void *msg_control; socklen_t msg_controllen; int msg_flags; size_t msg_datalen; }`; offsets in 32-bit
 * words.
 */
export const MsghdrX = { Iov: 4, IovLength: 6, Flags: 11, DataLength: 12, Words: 14 } as const;

// Implementation
/** Maximum packets per call. */
const BATCH_SIZE = 64;

/** Functions of libSystem that move many packets per call. */
export interface BatchFunctions {
  readonly recvmsg_x: NonNullable<LibSystem["recvmsg_x"]>;
  readonly sendmsg_x: NonNullable<LibSystem["sendmsg_x"]>;
}

/** Returns a `struct msghdr_x[]` with one entry per packet. */
function headersOf({ each }: PacketVectors): Uint32Array<ArrayBuffer> {
  const headers = new Uint32Array(each.length * MsghdrX.Words);
  each.forEach((vectors, i) => {
    setAddress(headers, i * MsghdrX.Words + MsghdrX.Iov, addressOf(vectors));
    headers[i * MsghdrX.Words + MsghdrX.IovLength] = 2;
  });
  return headers;
}

/** I/O of up to 64 packets per call. */
export class BatchIo implements PacketIo {
  readonly maxPackets = BATCH_SIZE;
  readonly vectors: PacketVectors = new PacketVectors(BATCH_SIZE);
  readonly #functions: BatchFunctions;
  readonly #incoming = headersOf(this.vectors);
  /** Separate headers, which the system does not write to, so that they need no reset. */
  readonly #outgoing = headersOf(this.vectors);

  constructor(functions: BatchFunctions) {
    this.#functions = functions;
  }

  receive(fd: number, count: number): number {
    const headers = this.#incoming;
    // The system writes flags here, and requires zeros before the next call.
    for (let i = 0; i < count; i++) headers[i * MsghdrX.Words + MsghdrX.Flags] = 0;
    return this.#functions.recvmsg_x(fd, headers, count, 0);
  }

  length(i: number): number {
    return this.#incoming[i * MsghdrX.Words + MsghdrX.DataLength]!;
  }

  send(fd: number, count: number): number {
    return this.#functions.sendmsg_x(fd, this.#outgoing, count, 0);
  }
}
