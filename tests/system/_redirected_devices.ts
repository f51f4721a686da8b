/** Two TUN devices of which each sends what the other one writes: the kernel redirects it, whatever its headers say. */

import { openTunQueues, type TunDevice } from "../../driver/linux/device.ts";
import { checkDeviceOptions, type DeviceOptions } from "../../driver/options.ts";
import { command } from "../kit/system.ts";

// Specification: filter.txt of the kernel, "BPF_RET | BPF_K" of all ones: any packet, whatever its length
const ANY_PACKET = "1,6 0 0 4294967295";

// Implementation
/** Packets that the kernel keeps for each device. */
const QUEUE = 1000;

/** Opens the devices; the namespace needs tc(8). */
export async function openDevices(
  mtu: number,
  linux: DeviceOptions["linux"] = {},
): Promise<[TunDevice, TunDevice]> {
  const [near, far] = ["near%d", "far%d"].map((name) =>
    openTunQueues(checkDeviceOptions({ name, mtu, linux: { txQueueLength: QUEUE, ...linux } })).device
  ) as [TunDevice, TunDevice];
  for (const [{ name: from }, { name: to }] of [[near, far], [far, near]] as const) {
    await command("tc", ["qdisc", "add", "dev", from, "clsact"]);
    const filter = ["filter", "add", "dev", from, "ingress", "protocol", "all"];
    const redirect = ["action", "mirred", "egress", "redirect", "dev", to];
    await command("tc", [...filter, "bpf", "bytecode", ANY_PACKET, ...redirect]);
  }
  return [near, far];
}
