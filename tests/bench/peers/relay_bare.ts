/** Two devices joined, and nothing in between. */
import { script } from "@warren/tunnel";
import { openDevice } from "@warren/tunnel/driver";

export default script(
  import.meta,
  { name: "ta", far: () => openDevice({ name: "tb" }) },
  (tunnel) => tunnel.run(),
);
