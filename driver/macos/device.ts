/** Devices of macOS: creates a utun interface and configures it. */

import { BsdDevice } from "../bsd/device.ts";
import { Interface } from "../bsd/interface.ts";
import { type PacketIo, SinglePacketIo } from "../bsd/packet_io.ts";
import { RouteSocket } from "../bsd/route_socket.ts";
import { checkSupported, Setup } from "../bsd/setup.ts";
import type { CheckedDeviceOptions } from "../options.ts";
import { BatchIo } from "./batch_io.ts";
import { DARWIN, type Darwin, darwin } from "./libsystem.ts";
import { openUtun } from "./utun.ts";

function packetIo(system: Darwin): PacketIo {
  const { recvmsg_x, sendmsg_x } = system.functions;
  return recvmsg_x === null || sendmsg_x === null
    ? new SinglePacketIo(system)
    : new BatchIo({ recvmsg_x, sendmsg_x });
}

/** Creates a utun device and configures it. If a step fails, the steps before it are undone. */
export function openUtunDevice(options: CheckedDeviceOptions): BsdDevice {
  checkSupported(DARWIN.system, options);
  const bsd = darwin();
  const { fd, name } = openUtun(bsd, options.name);
  using undo = new DisposableStack();
  undo.defer(() => bsd.functions.close(fd));
  const link = new Interface(bsd, name);
  const setup = new Setup(bsd, link, true);
  undo.defer(() => setup.undo());
  setup.apply(options);
  const routeSocket = undo.use(new RouteSocket(bsd));
  const device = new BsdDevice({ bsd, fd, io: packetIo(bsd), link, setup, routeSocket });
  undo.move();
  return device;
}
