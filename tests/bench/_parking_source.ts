/**
 * The process that writes what `parking` waits for. For each line `<gap in milliseconds> <count>` on its standard
 * input it sleeps and writes so many times, into the pipe that its argument names: the time just before the write.
 */

import { libc } from "../../driver/linux/libc.ts";
import { cString } from "../../driver/posix/libc.ts";
import { readMonotonicTime, TIMESPEC_WORDS } from "./measure.ts";

// Specification
// fcntl.h
const O_WRONLY = 1;

// After Ctrl-C the bench ends it: a way that waits needs it until then.
Deno.addSignalListener("SIGINT", () => {});

const { open, poll, writeFrom } = libc();
const pipe = open(cString(Deno.args[0]!), O_WRONLY, 0);
if (pipe < 0) throw new Error(`Cannot open ${Deno.args[0]}`);
const time = new BigInt64Array(TIMESPEC_WORDS);
const bytes = new Uint8Array(time.buffer);
const size = BigInt(bytes.length);
const nothing = new Int32Array(2);

for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) {
  for (const line of text.trim().split("\n")) {
    const [gap, count] = line.split(" ").map(Number);
    for (let i = 0; i < count!; i++) {
      poll(nothing, 0n, gap!);
      readMonotonicTime(time);
      writeFrom(pipe, bytes, size);
    }
  }
}
Deno.exit();
