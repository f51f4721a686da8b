/** `scripts/relay.ts` with a handler that makes every packet expensive: it sums up the bytes again and again. */
import { device, script, Verdict } from "@warren/tunnel";
import { sum } from "@warren/tunnel/checksum";

const TIMES = 200;
const options = { name: "left", far: device({ name: "right" }) };

export default script(import.meta, options, (tunnel) =>
  tunnel.run(({ bytes, offset, length }) => {
    let total = 0;
    for (let i = 0; i < TIMES; i++) total = sum(bytes, offset, length, total);
    return total < 0 ? Verdict.Drop : Verdict.Pass; // never, but V8 does not know
  }));
