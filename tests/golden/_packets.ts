/** The packets of the golden tests, for tests that send them at random. */

import { encodePacket } from "../kit/packet_text.ts";

/** What a test's slots hold. */
const LONGEST = 1700;

/** Every packet of the golden tests. */
export function goldenPackets(): Uint8Array[] {
  const folder = new URL("./", import.meta.url);
  return Array.from(Deno.readDirSync(folder)).filter(({ name }) => name.endsWith(".txt")).flatMap(({ name }) => {
    const lines = Deno.readTextFileSync(new URL(name, folder)).split("\n");
    const texts = lines.flatMap((line) => /^(?:outbound|inbound) (\w.*?)(?:\s*\/\/.*)?$/.exec(line)?.[1] ?? []);
    return texts.map(encodePacket).filter(({ length }) => length < LONGEST);
  });
}

