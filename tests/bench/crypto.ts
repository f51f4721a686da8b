/** `crypto`: cost of sealing and opening a packet with each cryptographic library, beside `openssl speed`. */

import { type AeadName, type BackendName, openCryptography } from "@warren/tunnel/cryptography";
import { ratio, summarize } from "./measure.ts";
import { atMost, type Contender, type Metric, type Report } from "./report.ts";

// Implementation
const FULL = { rounds: 25, milliseconds: 40 };
const QUICK = { rounds: 7, milliseconds: 10 };
const PACKET_BYTES = 1420;
const HEADER_BYTES = 16;
const TAG_BYTES = 16;
const SLOT_BYTES = 4096;
/** A power of two, and more slots than the first cache holds. */
const SLOTS = 256;
const BACKENDS: readonly BackendName[] = ["libcrypto", "node", "noble"];
const AEADS: Readonly<Record<AeadName, { readonly keyBytes: number; readonly title: string }>> = {
  "chacha20-poly1305": { keyBytes: 32, title: "ChaCha20-Poly1305" },
  "aes-256-gcm": { keyBytes: 32, title: "AES-256-GCM" },
  "aes-128-gcm": { keyBytes: 16, title: "AES-128-GCM" },
};
const NAMES = Object.keys(AEADS) as AeadName[];

interface Bench extends Contender {
  /** By metric: runs this often. */
  readonly runs: Readonly<Record<string, (turns: number) => void>>;
}

/** Runs the bench in this process. */
export async function benchCrypto(quick: boolean, signal: AbortSignal): Promise<Report> {
  const { rounds, milliseconds } = quick ? QUICK : FULL;
  const missing: string[] = [];
  const benches: Bench[] = [];
  for (const backend of BACKENDS) {
    try {
      benches.push(await prepare(backend));
    } catch (error) {
      missing.push(`${backend}: ${(error as Error).message}`);
    }
  }
  const openssl: Contender = { name: "openssl speed", figures: {} };
  const turnsOf = new Map<(turns: number) => void, number>();
  for (const { runs } of benches) {
    for (const run of Object.values(runs)) {
      measure(run, milliseconds * 5); // V8 compiles
      turnsOf.set(run, measure(run, milliseconds));
    }
  }
  for (let round = 0; round < rounds; round++) {
    for (const { runs, figures } of benches) {
      for (const [key, run] of Object.entries(runs)) {
        const turns = turnsOf.get(run)!;
        const start = performance.now();
        run(turns);
        (figures[key] ??= []).push((performance.now() - start) * 1e6 / turns);
        await new Promise((resolve) => setTimeout(resolve, 0)); // for Ctrl-C
        signal.throwIfAborted();
      }
    }
  }
  try {
    for (const aead of NAMES) openssl.figures[`${aead} seal_ns`] = [await speed(aead)];
  } catch (error) {
    missing.push(`openssl speed: ${(error as Error).message}`);
  }
  const medianOf = (key: string) => summarize(benches[0]?.figures[key] ?? []).median;
  return {
    bench: "crypto",
    metrics: NAMES.flatMap((aead): Metric[] =>
      ["seal", "open"].map((what) => ({
        key: `${aead} ${what}_ns`,
        title: `${AEADS[aead].title} ${what}`,
        digits: 0,
      }))
    ),
    contenders: [...benches, ...Object.keys(openssl.figures).length > 0 ? [openssl] : []],
    ratios: Object.fromEntries(
      benches.slice(1).flatMap(({ name, figures }) =>
        NAMES.map((aead) => {
          const key = `${aead} seal_ns`;
          return [`${key} ${name}/${benches[0]!.name}`, ratio(figures[key]!, benches[0]!.figures[key]!)];
        })
      ),
    ),
    targets: [
      atMost("ns to seal by ChaCha20-Poly1305", medianOf("chacha20-poly1305 seal_ns"), 1600),
      atMost("ns to seal by AES-256-GCM", medianOf("aes-256-gcm seal_ns"), 1000),
    ],
    missing,
    notes: [
      `Nanoseconds for a packet of ${PACKET_BYTES} bytes with ${HEADER_BYTES} bytes of additional data: sealed where it ` +
      `lies, opened to another place, in ${SLOTS} slots in turn.`,
      `openssl speed: a loop in C over one buffer, with -aead -bytes ${PACKET_BYTES}; one figure.`,
    ],
  };
}

/** Runs in growing numbers until a run takes this long; returns how many turns fit in it. */
function measure(run: (turns: number) => void, milliseconds: number): number {
  for (let turns = 16;; turns *= 2) {
    const start = performance.now();
    run(turns);
    const elapsed = performance.now() - start;
    if (elapsed >= milliseconds) return Math.max(1, Math.round(turns * milliseconds / elapsed));
  }
}

async function prepare(backend: BackendName): Promise<Bench> {
  const { name, sealingKey, openingKey, random } = await openCryptography(backend);
  const runs: Record<string, (turns: number) => void> = {};
  const nonce = { base: new Uint8Array(12), offset: 4, length: 8, isLittleEndian: true } as const;
  for (const aead of NAMES) {
    const key = random(new Uint8Array(AEADS[aead].keyBytes));
    const [plain, sealed] = [0, 0].map(() => new Uint8Array(SLOTS * SLOT_BYTES));
    const sealing = sealingKey(aead, key, nonce, plain!);
    runs[`${aead} seal_ns`] = (turns) => {
      for (let turn = 0; turn < turns; turn++) {
        const header = (turn & (SLOTS - 1)) * SLOT_BYTES;
        const body = header + HEADER_BYTES;
        sealing.seal(body, PACKET_BYTES, body, header, HEADER_BYTES);
      }
    };
    using filling = sealingKey(aead, key, nonce, sealed!);
    for (let header = 0; header < sealed!.length; header += SLOT_BYTES) {
      filling.seal(header + HEADER_BYTES, PACKET_BYTES, header + HEADER_BYTES, header, HEADER_BYTES);
    }
    const opening = openingKey(aead, key, nonce, sealed!);
    runs[`${aead} open_ns`] = (turns) => {
      for (let turn = 0; turn < turns; turn++) {
        const counter = turn & (SLOTS - 1);
        const header = counter * SLOT_BYTES;
        const body = header + HEADER_BYTES;
        const plaintext = header + SLOT_BYTES / 2;
        if (opening.open(counter, body, PACKET_BYTES + TAG_BYTES, plaintext, header, HEADER_BYTES)) continue;
        throw new Error(`${name} refuses what it has sealed`);
      }
    };
  }
  return { name, figures: {}, runs };
}

/** Times that `openssl speed` reports for its own loop. */
async function speed(aead: AeadName): Promise<number> {
  const args = ["speed", "-seconds", "1", "-bytes", `${PACKET_BYTES}`, "-aead", "-evp", aead];
  const { code, stdout, stderr } = await new Deno.Command("openssl", { args }).output();
  const kilobytesPerSecond = /\s([\d.]+)k\s*$/.exec(new TextDecoder().decode(stdout))?.[1];
  if (code === 0 && kilobytesPerSecond !== undefined) return PACKET_BYTES / Number(kilobytesPerSecond) * 1e6;
  throw new Error(new TextDecoder().decode(stderr).trim());
}
