/**
 * The peers that are built from sources here, each into `peers/build/`.
 *
 * | peer | sources | by |
 * |---|---|---|
 * | `relay` | `peers/relay.c` | gcc |
 * | `parking` | `peers/parking.c` | gcc |
 * | `wireguard_go` | `peers/wireguard_go/`, over package `tun` of wireguard-go | go |
 * | `tun_rs` | `peers/tun_rs/`, over the crate tun-rs | cargo |
 */

import { say } from "./report.ts";

const SOURCES = new URL("peers/", import.meta.url);
const BUILD = new URL("peers/build/", import.meta.url);
const TUN_RS_TARGET = path("tun_rs.target", BUILD);

/** A peer's name. */
export type Peer = "relay" | "parking" | "wireguard_go" | "tun_rs";

/** How a peer is built. */
interface Recipe {
  /** What is newer than the program when it has to be built anew. */
  readonly sources: readonly string[];
  /** The compiler and its arguments that make it say its version. */
  readonly compiler: readonly [program: string, ...args: string[]];
  /** Whether that takes seconds at most, and needs no network. */
  readonly quick: boolean;
  /** The file that names the library's version, and the line that does. */
  readonly library?: readonly [file: string, line: RegExp];
  /** The folder and the command line that build it. */
  readonly folder: string;
  readonly command: readonly [program: string, ...args: string[]];
  /** What the command line made, where it could not be told the program's place. */
  readonly result?: string;
}

const RECIPES: Readonly<Record<Peer, Recipe>> = {
  relay: c("relay"),
  parking: c("parking"),
  wireguard_go: {
    sources: ["main.go", "go.mod", "go.sum"].map((file) => `wireguard_go/${file}`),
    compiler: ["go", "env", "GOVERSION"],
    quick: false,
    library: ["wireguard_go/go.mod", /^require golang\.zx2c4\.com\/(wireguard \S+)/m],
    folder: "wireguard_go",
    command: ["go", "build", "-trimpath", "-o", path("wireguard_go", BUILD), "."],
  },
  tun_rs: {
    sources: ["src/main.rs", "Cargo.toml", "Cargo.lock"].map((file) => `tun_rs/${file}`),
    compiler: ["rustc", "--version"],
    quick: false,
    library: ["tun_rs/Cargo.toml", /^(tun-rs) = \{ version = "=([^"]+)"/m],
    folder: "tun_rs",
    command: ["cargo", "build", "--release", "--locked", "--target-dir", TUN_RS_TARGET],
    result: `${TUN_RS_TARGET}/release/tun_rs`,
  },
};

/** A peer that is one file of C. */
function c(peer: string): Recipe {
  return {
    sources: [`${peer}.c`],
    compiler: ["gcc", "--version"],
    quick: true,
    folder: ".",
    command: ["gcc", "-O2", "-o", path(peer, BUILD), `${peer}.c`],
  };
}

/** How a peer is got hold of. */
export interface PeerOptions {
  /** Whether it may be built by what takes long or downloads. @default {true} */
  slow?: boolean;
}

/**
 * The program of a peer, which is built when it has not been, or its sources are newer.
 *
 * @throws {Deno.errors.NotFound} when its compiler is not there, or it has not been built and may not be.
 * @throws {Error} when the compiler refuses; it has said why on standard error.
 */
export async function buildPeer(peer: Peer, { slow = true }: PeerOptions = {}): Promise<string> {
  const { sources, compiler, quick, folder, command, result } = RECIPES[peer];
  const program = path(peer, BUILD);
  const changed = Math.max(...sources.map((file) => modified(path(file, SOURCES))));
  // The compiler's name is written last: with it, the peer is whole.
  if (Math.min(modified(program), modified(`${program}.compiler`)) >= changed) return program;
  if (!quick && !slow) throw new Deno.errors.NotFound("not built: run `deno task bench build`");
  const version = await compilerVersion(compiler);
  say(`building ${peer}: ${command.join(" ")}`);
  await Deno.mkdir(BUILD, { recursive: true });
  const [tool, ...args] = command;
  await using child = new Deno.Command(tool, {
    args,
    cwd: path(`${folder}/`, SOURCES),
    stdin: "null",
    stdout: "null",
  }).spawn();
  const { success, code } = await child.status;
  if (!success) throw new Error(`Cannot build ${peer}: ${tool} ended with ${code}`);
  if (result !== undefined) await Deno.copyFile(result, program);
  await Deno.writeTextFile(`${program}.compiler`, version);
  return program;
}

/** What became of a peer. */
export interface Built {
  readonly peer: Peer;
  /** Its program; `undefined` when there is none. */
  readonly program?: string;
  /** Why there is none. */
  readonly why?: string;
  /** Whether that is because its compiler refused. */
  readonly failed: boolean;
}

/** Builds every peer, one after the other. */
export async function buildPeers(): Promise<Built[]> {
  const built: Built[] = [];
  for (const peer of Object.keys(RECIPES) as Peer[]) {
    try {
      built.push({ peer, program: await buildPeer(peer), failed: false });
    } catch (error) {
      const why = (error as Error).message;
      built.push({ peer, why, failed: !(error instanceof Deno.errors.NotFound) });
    }
  }
  return built;
}

/** What a built peer was made of: its library and its compiler, with their versions. */
export function peerVersion(peer: Peer): string {
  const [file, line] = RECIPES[peer].library ?? [];
  const library = file && line!.exec(Deno.readTextFileSync(path(file, SOURCES)))?.slice(1).join(" ");
  const compiler = Deno.readTextFileSync(`${path(peer, BUILD)}.compiler`);
  return [library, compiler].filter((part) => part !== undefined).join(", ");
}

/** What a compiler calls itself, such as `gcc 12.2.0`. */
async function compilerVersion([program, ...args]: readonly string[]): Promise<string> {
  try {
    const { stdout } = await new Deno.Command(program!, { args, stderr: "null" }).output();
    return new TextDecoder().decode(stdout).split("\n")[0]!.replace(/ \(.*?\)/g, "");
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new Deno.errors.NotFound(`no ${program} on PATH`);
  }
}

/** When a file was last written; 0 when there is none. */
function modified(path: string): number {
  try {
    return Deno.statSync(path).mtime!.getTime();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}

function path(name: string, folder: URL): string {
  return decodeURI(new URL(name, folder).pathname);
}
