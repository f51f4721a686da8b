/** `scripts/relay.ts` that tells what it has counted. */
import { device, script } from "@warren/tunnel";
import { runTold } from "./_tell.ts";

const options = { name: "left", far: device({ name: "right" }) };

export default script(import.meta, options, (tunnel) => runTold(tunnel));
