/** Two devices joined, and nothing in between. */
import { device, script } from "@warren/tunnel";

export default script(
  import.meta,
  { name: "ta", far: device({ name: "tb" }) },
  (tunnel) => tunnel.run(),
);
