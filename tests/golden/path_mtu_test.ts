/** Path MTUs that are learned, as text. */

import { PathMtu, type PathMtuOptions } from "@warren/tunnel/path_mtu";
import { goldenTests } from "../kit/golden.ts";

goldenTests<PathMtuOptions>(new URL("path_mtu.txt", import.meta.url), (options) => [new PathMtu(options)]);
