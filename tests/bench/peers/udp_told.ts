/** Both ends of a tunnel over UDP in one process, which tells what it has counted. The other end's device is `tb`. */
import { openTunnel, script, udp } from "@warren/tunnel";
import { runTold } from "./_tell.ts";

const [HERE, THERE] = ["127.0.0.1:4501", "127.0.0.1:4502"];
const options = { name: "ta", far: udp({ peer: THERE, listen: HERE }) };

export default script(import.meta, options, async (tunnel) => {
  await using other = await openTunnel({ name: "tb", far: udp({ peer: HERE, listen: THERE }) });
  await runTold(tunnel, other);
});
