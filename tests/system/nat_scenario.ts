/**
 * Puts packets through the kernel's own router, which stands between two devices in this namespace. Its argument is a
 * list of directions and packets, its output what came of each on the other side, or nothing.
 */

import { Direction, openTunnel, Verdict } from "../../runtime/mod.ts";
import { copy } from "../../lib/split/copy.ts";

/** How long the kernel may take for a packet (ms); what it has dropped does not come. */
const TIMEOUT = 2000;

const settings = { signals: false, watchdog: 0, linux: { offload: false } } as const;
const inside = await openTunnel({ ...settings, name: "in0", address: "10.9.0.254/24" });
const outside = await openTunnel({
  ...settings,
  name: "out0",
  address: "198.51.100.1/24",
  route: ["192.0.2.0/24", "203.0.113.0/24"],
});

let came: (packet: string) => void = () => {};
const running = [inside, outside].map((tunnel) =>
  tunnel.run((packet, { direction }) => {
    if (direction === Direction.Inbound) return Verdict.Pass;
    const [bytes] = copy(packet);
    // The kernel's own reports (IGMP) have options.
    if (bytes?.[0] === 0x45) came(bytes.toHex());
    return Verdict.Drop;
  })
);

const results: string[] = [];
for (const [direction, packet] of JSON.parse(Deno.args[0]!) as [string, string][]) {
  const { promise, resolve } = Promise.withResolvers<string>();
  const timer = setTimeout(() => resolve(""), TIMEOUT);
  came = resolve;
  (direction === "outbound" ? inside : outside).send(Uint8Array.fromHex(packet));
  results.push(await promise);
  clearTimeout(timer);
}
inside.close();
outside.close();
await Promise.all(running);
console.log(JSON.stringify(results));
