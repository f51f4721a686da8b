/** Filters beside tcpdump: the same expressions, the same packets, the same answers. */

import { deepEqual, equal, ok, throws } from "node:assert/strict";
import { existsSync } from "node:fs";
import { PacketPool } from "@warren/tunnel/core";
import { compileFilter } from "@warren/tunnel/filter";
import { Protocol } from "@warren/tunnel/ip";
import { pcapOf } from "../kit/pcap.ts";
import { command, systemTest } from "../kit/system.ts";
import { PORT_NAMES, PROTOCOL_NAMES } from "../../lib/filter/_words.ts";
import { Random } from "../../lib/core/random.ts";
import {
  BACKWARD,
  CHAINED,
  EXPRESSIONS,
  NAMED,
  randomExpression,
  REFUSED,
} from "../lib/filter/_expressions.ts";
import { filterPackets, WHOLE } from "../lib/filter/_packets.ts";

const SEED = 7;
const PACKETS = 3000;
const RANDOM_EXPRESSIONS = 150;
const PCAP_MAGIC = 0xa1b2c3d4;
const PCAP_HEADER = 24;
const RECORD_HEADER = 16;
/** libpcap's word for an expression of which it sees that it is false for each packet. */
const NEVER = "expression rejects all packets";
/** Where the C library has the names that tcpdump looks up. */
const FILES_OF_NAMES = ["/etc/services", "/etc/protocols"];
const IPV6_HEADER = 40;
const INDEXED = /(tcp|udp|sctp|pim) ?\[/;
const DIVISION = / [/%] /;
/** What libpcap's optimizer, which folds constants, refuses since it would fail for each packet. */
const FOLDED = ["division by zero", "modulus by zero", "shift by more than 31 bits"];
/**
 * What libpcap refuses, and ours does not: more numbers at a time than it has registers, and to divide or shift by
 * `ip[0]` or `ip[40]`, where it takes the place for the number.
 */
const LIMITS = ["too many registers", ...FOLDED];

const PACKETS_OF_ALL = filterPackets(new Random(SEED), PACKETS);
/** Those without the number of an authentication header, at which libpcap's `protochain` loses its place. */
const UNSIGNED = PACKETS_OF_ALL.filter((packet) => !packet.includes(Protocol.Ah));

/** The numbers in a capture that tcpdump wrote, or what it said instead. */
async function tcpdump(file: string, expression: string, optimize: boolean): Promise<Set<number> | string> {
  const options = optimize ? [] : ["-O"];
  const { code, stdout, stderr } = await new Deno.Command("tcpdump", {
    args: [...options, "-n", "-r", file, "-w", "-", "--", expression],
  }).output();
  if (code !== 0) {
    const said = new TextDecoder().decode(stderr);
    return said.includes(NEVER) ? new Set() : said;
  }
  const view = new DataView(stdout.buffer, stdout.byteOffset, stdout.byteLength);
  const isLittle = view.getUint32(0) !== PCAP_MAGIC;
  const numbers = new Set<number>();
  for (let at = PCAP_HEADER; at < stdout.length; at += RECORD_HEADER + view.getUint32(at + 8, isLittle)) {
    numbers.add(view.getUint32(at, isLittle));
  }
  return numbers;
}

/** The numbers of the packets that a filter of ours matches; `undefined` for one that it refuses. */
function matches(expression: string, packets = PACKETS_OF_ALL): Set<number> | undefined {
  let filter;
  try {
    filter = compileFilter(expression);
  } catch (error) {
    ok(error instanceof SyntaxError, expression);
    return undefined;
  }
  const pool = new PacketPool();
  const packet = pool.take(1)!;
  const numbers = new Set<number>();
  packets.forEach((bytes, number) => {
    packet.bytes.set(bytes, packet.offset);
    packet.length = bytes.length;
    if (filter(packet)) numbers.add(number);
  });
  return numbers;
}

/** Whether libpcap 1.10 reads, for `tcp[...]`, an IPv6 header that ends before; its optimizer and later ones do not. */
function isCutBeforeTcp(packet: Uint8Array, expression: string): boolean {
  return packet.length <= IPV6_HEADER && packet[0]! >> 4 === 6 && INDEXED.test(expression);
}

/**
 * Asserts that libpcap agrees: without its optimizer always, and with it where nothing can fail, since it leaves out, or
 * puts elsewhere, what reads behind a packet's end or divides by zero. Returns whether libpcap compiled it.
 */
async function assertSame(file: string, expression: string): Promise<boolean> {
  const [plain, optimized] = await Promise.all([false, true].map((way) => tcpdump(file, expression, way)));
  const ours = matches(expression);
  if (typeof plain === "string") {
    if (!LIMITS.some((word) => plain.includes(word))) {
      deepEqual(ours, undefined, `accepts what is refused: ${expression}: ${plain}`);
    }
    return false;
  }
  ok(ours !== undefined, `refuses what is accepted: ${expression}`);
  const isFolded = typeof optimized === "string";
  if (isFolded) ok(FOLDED.some((word) => optimized.includes(word)), `${expression}: ${optimized}`);
  const wrong = PACKETS_OF_ALL.flatMap((packet, number) => {
    const own = ours.has(number);
    const canFail = isFolded || packet.length < WHOLE || DIVISION.test(expression);
    const isPlain = own === plain.has(number);
    const isOptimized = canFail || own === optimized.has(number);
    const isRight = (isPlain || isCutBeforeTcp(packet, expression)) && isOptimized;
    return isRight ? [] : [`${packet.toHex()} is ${own}`];
  });
  deepEqual(wrong.slice(0, 3), [], `${wrong.length} answers differ: ${expression}`);
  return true;
}

async function withCapture(use: (file: string) => Promise<void>, packets = PACKETS_OF_ALL): Promise<void> {
  const file = await Deno.makeTempFile({ suffix: ".pcap" });
  try {
    await Deno.writeFile(file, pcapOf(packets));
    await use(file);
  } finally {
    await Deno.remove(file);
  }
}

systemTest(
  "compileFilter() matches what tcpdump matches",
  { programs: ["tcpdump"], root: false },
  () =>
    withCapture(async (file) => {
      for (const expression of EXPRESSIONS) {
        ok(await assertSame(file, expression), `tcpdump refuses ${expression}`);
      }
    }),
);

/** The program that tcpdump makes of an expression. */
async function programOf(expression: string): Promise<string> {
  return (await command("tcpdump", ["-d", "-y", "RAW", "--", expression])).stdout;
}

const NAMES = "compileFilter() knows the names that tcpdump knows";
if (FILES_OF_NAMES.every((file) => existsSync(file))) {
  systemTest(NAMES, { programs: ["tcpdump"], root: false }, async () => {
    for (const [name, [port, protocol]] of PORT_NAMES) {
      const word = { 0: "", [Protocol.Tcp]: "tcp", [Protocol.Udp]: "udp" }[protocol];
      equal(await programOf(`port ${name}`), await programOf(`${word} port ${port}`), name);
    }
    for (const [name, protocol] of PROTOCOL_NAMES) {
      equal(await programOf(`proto \\${name}`), await programOf(`proto ${protocol}`), name);
    }
    await withCapture(async (file) => {
      for (const expression of NAMED) {
        ok(await assertSame(file, expression), `tcpdump refuses ${expression}`);
      }
    });
  });
} else console.log(`skipped: ${NAMES}: no ${FILES_OF_NAMES.join(" and ")}`);

systemTest(
  "compileFilter() reads backward as tcpdump -O does",
  { programs: ["tcpdump"], root: false },
  () =>
    withCapture(async (file) => {
      for (const expression of BACKWARD) {
        deepEqual(matches(expression), await tcpdump(file, expression, false));
      }
    }),
);

systemTest("compileFilter() goes behind extension headers as tcpdump does", {
  programs: ["tcpdump"],
  root: false,
}, () =>
  withCapture(async (file) => {
    for (const expression of CHAINED) {
      const answer = await tcpdump(file, expression, true);
      ok(typeof answer !== "string" && answer.size > 0, expression);
      deepEqual(matches(expression, UNSIGNED), answer, expression);
    }
  }, UNSIGNED));

systemTest("compileFilter() matches what tcpdump matches, for random filters", {
  programs: ["tcpdump"],
  root: false,
}, () =>
  withCapture(async (file) => {
    const random = new Random(SEED);
    let compiled = 0;
    for (let i = 0; i < RANDOM_EXPRESSIONS; i++) {
      if (await assertSame(file, randomExpression(random))) compiled++;
    }
    ok(compiled > RANDOM_EXPRESSIONS / 2, `only ${compiled} compiled`);
  }));

systemTest(
  "compileFilter() refuses what tcpdump refuses",
  { programs: ["tcpdump"], root: false },
  () =>
    withCapture(async (file) => {
      for (const expression of REFUSED) {
        const answer = await tcpdump(file, expression, true);
        ok(typeof answer === "string" || answer.size === 0, `tcpdump accepts ${expression}`);
        throws(
          () => compileFilter(expression),
          { name: "SyntaxError", message: /at column \d+$/ },
          expression,
        );
      }
    }),
);
