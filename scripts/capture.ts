#!/usr/bin/env -S deno run --allow-ffi --allow-write=.
/**
 * Answers pings into 10.9.0.0/24, and writes what passes to capture_*.pcapng here, 10 files of 10 MB in turn.
 * Try: ping -c 3 10.9.0.77, then Ctrl-C and: tshark -r capture_00001_*.pcapng
 */
import { script, Verdict } from "@warren/tunnel";
import { Capture } from "@warren/tunnel/capture";
import { openCaptureFile } from "@warren/tunnel/capture_sink";
import { Icmpv4 } from "@warren/tunnel/icmpv4";

export default script(import.meta, { address: "10.9.0.1/24" }, async (tunnel) => {
  // For packets as they come: const pipe = openWireshark(), in its place; needs --allow-run=wireshark.
  using file = openCaptureFile("capture.pcapng", { rotateBytes: 10e6, files: 10 });
  tunnel.use(new Capture(file, { interface: tunnel.name }));
  await tunnel.run((packet) => {
    const icmp = Icmpv4.of(packet);
    if (icmp?.type !== Icmpv4.EchoRequest) return Verdict.Drop;
    icmp.type = Icmpv4.EchoReply;
    icmp.ip.swap();
    return Verdict.Reply;
  });
});
