/** Structures and constants of Linux's sockets and TUN devices against the system's headers. */

import { deepStrictEqual } from "node:assert/strict";
import { TunFlag, TunOffload, TunRequest } from "../../driver/linux/device.ts";
import { Errno } from "../../driver/linux/errno.ts";
import { ErrorQueue, SockExtendedErr } from "../../driver/linux/error_queue.ts";
import { VirtioNetHeader } from "../../driver/linux/queue/virtio_net.ts";
import { Cmsghdr, PacketInfo } from "../../driver/linux/local_control.ts";
import { Segment } from "../../driver/linux/segments.ts";
import { Socket } from "../../driver/linux/udp_socket.ts";
import { Iovec } from "../../driver/posix/iovec.ts";
import { In6Pktinfo, InPktinfo } from "../../driver/posix/local_control.ts";
import { Mmsghdr } from "../../driver/posix/messages.ts";
import { Endpoint } from "../../driver/udp_socket.ts";
import { type Compiler, expressionsOf, numbersOf } from "../kit/c_numbers.ts";
import { systemTest } from "../kit/system.ts";

const CC: Compiler = {
  compiler: "cc",
  objcopy: "objcopy",
  flags: ["-D_GNU_SOURCE"],
  headers: [
    "sys/socket.h",
    "sys/uio.h",
    "sys/ioctl.h",
    "netinet/in.h",
    "netinet/udp.h",
    "net/if.h",
    "errno.h",
    "linux/errqueue.h",
    "linux/if_tun.h",
    "linux/virtio_net.h",
  ],
};

const STRUCTURES = {
  "struct iovec": Iovec,
  "struct mmsghdr": Mmsghdr,
  "struct cmsghdr": Cmsghdr,
  "struct in_pktinfo": InPktinfo,
  "struct sock_extended_err": SockExtendedErr,
  "struct in6_pktinfo": In6Pktinfo,
  "struct virtio_net_hdr": VirtioNetHeader,
  "struct sockaddr_in": {
    sin_family: Endpoint.Family,
    sin_port: Endpoint.Port,
    sin_addr: Endpoint.Ipv4Address,
    size: Endpoint.Ipv4Size,
  },
  "struct sockaddr_in6": {
    sin6_family: Endpoint.Family,
    sin6_port: Endpoint.Port,
    sin6_flowinfo: Endpoint.Ipv6Flow,
    sin6_addr: Endpoint.Ipv6Address,
    sin6_scope_id: Endpoint.Ipv6Scope,
    size: Endpoint.Ipv6Size,
  },
};

/** Members whose name in a table differs from C's. */
const MEMBERS = {
  "struct iovec.base": "iov_base",
  "struct iovec.length": "iov_len",
  "struct cmsghdr.length": "cmsg_len",
  "struct cmsghdr.level": "cmsg_level",
  "struct cmsghdr.type": "cmsg_type",
  "struct mmsghdr.name": "msg_hdr.msg_name",
  "struct mmsghdr.nameLength": "msg_hdr.msg_namelen",
  "struct mmsghdr.vector": "msg_hdr.msg_iov",
  "struct mmsghdr.vectorLength": "msg_hdr.msg_iovlen",
  "struct mmsghdr.control": "msg_hdr.msg_control",
  "struct mmsghdr.controlLength": "msg_hdr.msg_controllen",
  "struct mmsghdr.flags": "msg_hdr.msg_flags",
  "struct mmsghdr.length": "msg_len",
  "struct virtio_net_hdr.Flags": "flags",
  "struct virtio_net_hdr.GsoType": "gso_type",
  "struct virtio_net_hdr.HeaderLength": "hdr_len",
  "struct virtio_net_hdr.GsoSize": "gso_size",
  "struct virtio_net_hdr.ChecksumStart": "csum_start",
  "struct virtio_net_hdr.ChecksumOffset": "csum_offset",
};

/** Constants that headers before Linux 6.2 lack. */
const SINCE_6_2 = ["TUN_F_USO4", "TUN_F_USO6"];
const TUN = Object.fromEntries(
  Object.entries({ ...TunRequest, ...TunFlag, ...TunOffload })
    .filter(([name]) => !SINCE_6_2.includes(name))
    .map(([name, value]) => [name, Number(value)]),
);

systemTest(
  "Linux's structures and constants are those of the system's headers",
  { root: false, programs: [CC.compiler, CC.objcopy] },
  async () => {
    const constants = { ...Socket, ...Segment, ...PacketInfo, ...ErrorQueue, ...Errno, ...TUN };
    const { expressions, expected } = expressionsOf(STRUCTURES, MEMBERS, constants);
    deepStrictEqual(await numbersOf(CC, expressions), expected);
  },
);
