/** The benches: `deno task bench NAME [--json] [--quick] [--write]`. */

// @ts-types="../../runtime/script/parse_args.d.ts"
import { parseArgs } from "@std/cli/parse-args";
import { benchCrypto } from "./crypto.ts";
import { buildPeers } from "./peers.ts";
import { benchLatency } from "./latency.ts";
import { benchParking } from "./parking.ts";
import { benchRelay } from "./relay.ts";
import { machine, type Report, say, toJson, toText, writeResults } from "./report.ts";
import { benchScale } from "./scale.ts";
import { benchSoak } from "./soak.ts";
import { benchSegments } from "./segments.ts";
import { benchStages } from "./stages.ts";
import { benchTcp } from "./tcp.ts";
import { benchToolbox } from "./toolbox.ts";
import { benchWintun } from "./wintun.ts";

const BENCHES: Record<string, (quick: boolean, signal: AbortSignal) => Promise<Report>> = {
  tcp: benchTcp,
  relay: benchRelay,
  latency: benchLatency,
  parking: benchParking,
  scale: benchScale,
  soak: benchSoak,
  segments: benchSegments,
  stages: benchStages,
  toolbox: benchToolbox,
  wintun: benchWintun,
  crypto: benchCrypto,
};

const USAGE = `Usage: deno task bench NAME [flags]

  tcp       one stream of TCP between two TUN devices, Warren beside its peers; needs root, iperf3
  relay     what a small packet costs there; needs root, iperf3
  latency   pings there; needs root, iperf3, ping
  parking   ways of waiting for a packet: how fast each wakes, and what it costs; needs gcc
  scale     a costly script by two workers beside one; needs root, iperf3
  soak      ten minutes at full rate: memory, collections, and whether every packet is accounted for; the same
  segments  cutting super-packets and grouping segments beside a plain copy; needs no privilege
  stages    what a handler, a chain of stages and each surface add to a packet; needs no privilege
  toolbox   what each of the toolbox's stages adds to a packet; needs no privilege
  wintun    what is added to Wintun's calls, and what idling costs; needs Wine, mingw, npm
  crypto    what sealing and opening a packet costs with each cryptographic library; needs no privilege
  build     compiles the peers, which takes a minute; needs gcc, Go, Rust, each for its own

  --json       the last line of the output is the result as one JSON object
  --quick      shorter and rougher: within 50 s
  --write      writes the result to tests/bench/RESULTS.md
  -h, --help   this text

Exit code: 0 when the bench ran, whether targets are met or not; 1 when it failed, 2 for a wrong command line,
130 after Ctrl-C.
`;

/** The command line makes no sense. */
class UsageError extends Error {}

interface Flags {
  readonly name: string;
  readonly json: boolean;
  readonly quick: boolean;
  readonly write: boolean;
}

function parseFlags(args: string[]): Flags | undefined {
  const parsed = parseArgs(args, {
    boolean: ["json", "quick", "write", "help"],
    alias: { h: "help" },
    unknown: (argument) => {
      if (argument.startsWith("-")) throw new UsageError(`${argument} is no flag of a bench`);
    },
  });
  if (parsed.help === true) return undefined;
  const names = parsed._.map(String);
  const known = [...Object.keys(BENCHES), "build"];
  if (names.length !== 1) throw new UsageError(`Name one bench: ${known.join(", ")}`);
  if (!known.includes(names[0]!)) {
    throw new UsageError(`"${names[0]}" is no bench: there are ${known.join(", ")}`);
  }
  return {
    name: names[0]!,
    json: parsed.json === true,
    quick: parsed.quick === true,
    write: parsed.write === true,
  };
}

async function run({ name, json, quick, write }: Flags, signal: AbortSignal): Promise<void> {
  if (name === "build") return await build(json);
  const report = await BENCHES[name]!(quick, signal);
  const at = machine();
  console.log(toText(report, at));
  if (write) writeResults(report, at, quick);
  if (json) console.log(toJson(report, at));
}

/** Builds the peers. One whose compiler is not there is named; one whose compiler refuses fails. */
async function build(json: boolean): Promise<void> {
  const peers = await buildPeers();
  for (const { peer, program, why, failed } of peers) {
    console.log(program ?? `${failed ? "FAILED" : "missing"}: ${peer}: ${why}`);
  }
  if (json) console.log(JSON.stringify({ bench: "build", peers }));
  if (peers.some(({ failed }) => failed)) Deno.exitCode = 1;
}

const interrupt = new AbortController();
const { signal } = interrupt;
for (const name of ["SIGINT", "SIGTERM"] as const) {
  Deno.addSignalListener(name, () => interrupt.abort(new Error("Interrupted")));
}
// What fails unseen must not end the process before the namespaces are removed.
addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  interrupt.abort(event.reason);
});
addEventListener("error", (event) => {
  event.preventDefault();
  interrupt.abort(event.error);
});
try {
  const flags = parseFlags(Deno.args);
  if (flags === undefined) console.log(USAGE);
  else await run(flags, signal);
} catch (error) {
  const wrong = error instanceof UsageError;
  const { message } = (signal.aborted ? signal.reason : error) as Error;
  say(`${message}${wrong ? "\nTry: deno task bench --help" : ""}`);
  Deno.exitCode = wrong ? 2 : signal.aborted ? 130 : 1;
}
// Signal listeners would keep the process.
Deno.exit();
