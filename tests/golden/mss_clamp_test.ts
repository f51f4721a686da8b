/** The clamped MSS, as text. */

import { mssClamp, type MssClampOptions } from "@warren/tunnel/mss_clamp";
import { goldenTests } from "../kit/golden.ts";

goldenTests<MssClampOptions>(new URL("mss_clamp.txt", import.meta.url), (options) => [mssClamp(options)]);
