#!/usr/bin/env -S deno run --allow-ffi
/** Sends packets for the office to its machine over UDP, and answers the rest at once: nothing is there. Try: split_tunnel.ts --far udp://192.0.2.1:4500, there udp_tunnel.ts --address 10.9.0.2/24; ping 10.9.0.2; ping 10.200.0.1 */
import { script } from "@warren/tunnel";
