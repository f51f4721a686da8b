/** Writes captures as pcapng, and reads pcapng and pcap. */

export { type CaptureSink, PcapngWriter, type PcapngWriterOptions } from "./pcapng_writer.ts";
export {
  type CapturedPacket,
  type CaptureInterface,
  CaptureParser,
  parseCapture,
  readCapture,
} from "./capture_reader.ts";
