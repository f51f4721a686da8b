/** Many packets a call, by recvmsg_x and sendmsg_x, which libSystem has without promising them. */

import { type PacketIo, PacketVectors } from "../bsd/packet_io.ts";
import { addressOf, setAddress } from "../native_memory.ts";
import type { LibSystem } from "./libsystem.ts";

// Specification
/**
 * bsd/sys/socket_private.h: `struct msghdr_x { void *msg_name; socklen_t msg_namelen; struct iovec *msg_iov;
 * int msg_iovlen; void *msg_control; socklen_t msg_controllen; int msg_flags; size_t msg_datalen; }`, in words of four
 * bytes.
 */
export const MsghdrX = { Iov: 4, IovLength: 6, Flags: 11, DataLength: 12, Words: 14 } as const;

// Implementation
/** Packets of a call. */
const MOST = 64;

/** Both functions, where the library has them. */
export interface BatchFunctions {
  readonly recvmsg_x: NonNullable<LibSystem["recvmsg_x"]>;
  readonly sendmsg_x: NonNullable<LibSystem["sendmsg_x"]>;
}

/** `struct msghdr_x[]`, one for each packet. */
function headersOf({ each }: PacketVectors): Uint32Array<ArrayBuffer> {
  const headers = new Uint32Array(each.length * MsghdrX.Words);
  each.forEach((pieces, i) => {
    setAddress(headers, i * MsghdrX.Words + MsghdrX.Iov, addressOf(pieces));
    headers[i * MsghdrX.Words + MsghdrX.IovLength] = 2;
  });
  return headers;
}

/** Many packets a call. */
export class BatchIo implements PacketIo {
  readonly most = MOST;
  readonly vectors: PacketVectors = new PacketVectors(MOST);
  readonly #functions: BatchFunctions;
  readonly #incoming = headersOf(this.vectors);
  /** The system writes nothing into these. */
  readonly #outgoing = headersOf(this.vectors);

  /** By these functions. */
  constructor(functions: BatchFunctions) {
    this.#functions = functions;
  }

  receive(fd: number, count: number): number {
    const headers = this.#incoming;
    // The system writes flags, and takes none.
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
