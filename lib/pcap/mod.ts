/** Captures: packets written to pcapng as they pass, and read back from pcapng and pcap. */

export { Capture, type CaptureOptions } from "../stage/observe/capture.ts";
export { type CaptureSink, PcapngWriter, type PcapngWriterOptions } from "./pcapng_writer.ts";
export {
  type CapturedPacket,
  type CaptureInterface,
  CaptureParser,
  parseCapture,
  readCapture,
} from "./capture_reader.ts";
