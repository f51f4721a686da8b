/**
 * Golden tests: packets in, packets out, as text. A file has cases, each of which becomes a test:
 *
 *     # A flow keeps its port, and answers come back
 *     options { "outside": "198.51.100.1" }
 *     outbound udp 10.9.0.1:5000 > 192.0.2.1:53 "hello"
 *       far udp 198.51.100.1:5000 > 192.0.2.1:53 "hello"
 *     after 300000
 *     inbound udp 192.0.2.1:53 > 198.51.100.1:5000 "late"
 *       dropped no mapping
 *
 * What goes in stands at the line's start, what comes of it is indented: packets for the far end, those for the device,
 * and the reasons of those that were dropped. `after` lets milliseconds pass. Packets are as `packet_text.ts` says; what
 * follows "//" is a comment. To rewrite a file by what comes, and read the difference:
 * `deno test -A tests/golden -- --update`.
 */

import assert from "node:assert/strict";
import { Direction, type Stage } from "../../lib/core/mod.ts";
import { encodePacket, formatPacket } from "./packet_text.ts";
import { TestPipeline } from "./pipeline.ts";

interface Case {
  readonly title: string;
  readonly options: unknown;
  readonly lines: string[];
}

/**
 * Makes a test of each case in a file.
 *
 * @param make Makes the stages of a case, the first one next to the device, of its options (`{}` without any).
 */
export function goldenTests<Options>(file: URL, make: (options: Options) => Stage[]): void {
  const cases = parseCases(Deno.readTextFileSync(file));
  if (Deno.args.includes("--update")) {
    Deno.writeTextFileSync(file, cases.map((golden) => format(golden, run(golden, make))).join("\n"));
  }
  for (const golden of cases) {
    Deno.test(golden.title, () => assert.equal(run(golden, make).join("\n"), golden.lines.join("\n")));
  }
}

function parseCases(text: string): Case[] {
  return text.split(/^# /m).slice(1).map((block) => {
    const [title, ...rest] = block.trimEnd().split("\n");
    const at = rest.findIndex((line) => line.startsWith("options "));
    const options = at < 0 ? {} : JSON.parse(rest[at]!.slice("options ".length));
    return { title: title!, options, lines: at < 0 ? rest : rest.toSpliced(at, 1) };
  });
}

function format({ title, options }: Case, lines: string[]): string {
  const told = JSON.stringify(options);
  return [`# ${title}`, ...told === "{}" ? [] : [`options ${told}`], ...lines, ""].join("\n");
}

/** The case's lines as they really are. */
function run<Options>({ options, lines }: Case, make: (options: Options) => Stage[]): string[] {
  const test = new TestPipeline(...make(options as Options));
  test.settle();
  const told: string[] = [];
  for (const line of lines) {
    if (/^\s+\S/.test(line)) continue;
    told.push(line);
    const [word, ...rest] = line.replace(/\s*\/\/.*/, "").split(" ");
    if (word === "") continue;
    const before = test.pipeline.ledger.counters.snapshot(0).dropped;
    if (word === "outbound" || word === "inbound") {
      test.send(word === "outbound" ? Direction.Outbound : Direction.Inbound, encodePacket(rest.join(" ")));
    } else if (word === "after") test.now += Number(rest[0]);
    else throw new SyntaxError(`"${word}" is no step of a golden test`);
    test.settle();
    const { far, device } = test.receive();
    for (const bytes of far) told.push(`  far ${formatPacket(bytes)}`);
    for (const bytes of device) told.push(`  device ${formatPacket(bytes)}`);
    const { dropped } = test.pipeline.ledger.counters.snapshot(0);
    for (const [reason, count] of Object.entries(dropped)) {
      for (let i = before[reason] ?? 0; i < count; i++) told.push(`  dropped ${reason}`);
    }
    assert.ok(test.balanced, `the books do not balance after: ${line}`);
  }
  return told;
}
