/** Who takes part in the benches of relays, and how each is started. */

import { DEVICES, type RelayProgram } from "./crossing.ts";
import { WATCHED } from "./heap_watch.ts";
import { buildPeer, type Peer, type PeerOptions } from "./peers.ts";

/** How contenders are started. */
export interface StartOptions extends PeerOptions {
  /** Whether the heap of Warren's is watched. @default {false} */
  watched?: boolean;
}

/** One that can take part. */
export interface Entrant {
  readonly name: string;
  /** What it is, for a report. */
  readonly about: string;
  /** The peer that it is, when it is built from sources here. */
  readonly peer?: Peer;
  /** The relay; `"veth"` where the kernel does it alone. Throws what keeps it from taking part. */
  start(options: StartOptions): RelayProgram | "veth" | Promise<RelayProgram>;
}

/** The contenders' names. `Plain` is without segmentation offload, and by io_uring where much comes. */
export const Name = {
  Bare: "warren bare",
  Rewrite: "warren rewrite",
  BusyPoll: "warren busy-poll",
  PlainBare: "warren plain bare",
  PlainRewrite: "warren plain rewrite",
  C: "c",
  COffload: "c offload",
  DenoLoop: "deno loop",
  Socat: "socat",
  WireguardGo: "wireguard-go",
  TunRs: "tun-rs",
  Veth: "veth",
} as const;

/** A contender's name. */
export type Name = typeof Name[keyof typeof Name];

const RELAY = "../../scripts/relay.ts";
const REWRITE = "peers/relay_rewrite.ts";
/** Microseconds. */
const BUSY_POLL = "20000";
const MINIMAL_LOOP = "peers/minimal_loop.ts";
const SOCAT_BYTES = 65536;

/** A script of Warren's between the devices, by its path from here and further flags. */
export function warren(
  script: string,
  flags: readonly string[],
  { watched = false }: StartOptions,
): RelayProgram {
  const path = decodeURI(new URL(script, import.meta.url).pathname);
  const args = ["run", "--quiet", "--no-prompt", "--allow-ffi", ...watched ? WATCHED : [], path];
  return { program: Deno.execPath(), args: [...args, "--name", DEVICES[0], "--quiet", ...flags], watched };
}

/** A script of Warren's as {@linkcode warren} starts it, with the far end that every relay has. */
export function relayScript(
  name: string,
  path: string,
  offload: boolean,
  about: string,
  ...more: readonly string[]
): Entrant {
  const far = `tun:${DEVICES[1]}`;
  const flags = offload ? ["--far", far] : ["--no-offload", "--far", `${far}?offload=no`];
  return { name, about, start: (options) => warren(path, [...flags, ...more], options) };
}

/** A peer that is built from sources here. */
function peer(name: string, peer: Peer, about: string, ...flags: string[]): Entrant {
  const start = async (options: StartOptions) => {
    return { program: await buildPeer(peer, options), args: [...flags, ...DEVICES] };
  };
  return { name, about, peer, start };
}

const CUTS = "super-packets are cut, segments are grouped again; two threads";

const ENTRANTS: readonly Entrant[] = [
  relayScript(Name.Bare, RELAY, true, "scripts/relay.ts; super-packets pass whole; one thread"),
  relayScript(
    Name.Rewrite,
    REWRITE,
    true,
    "the same with a handler that reads the TCP or UDP view and rewrites the TTL",
  ),
  relayScript(
    Name.BusyPoll,
    REWRITE,
    true,
    `the same with --busy-poll ${BUSY_POLL}, which spins between pings 10 ms apart`,
    "--busy-poll",
    BUSY_POLL,
  ),
  relayScript(Name.PlainBare, RELAY, false, "scripts/relay.ts with offload off; io_uring; one thread"),
  relayScript(Name.PlainRewrite, REWRITE, false, "the same with that handler"),
  peer(Name.C, "relay", "poll, read and write with offload off; one thread"),
  peer(
    Name.COffload,
    "relay",
    "poll, read and write with offload; super-packets pass whole; one thread",
    "-o",
  ),
  {
    name: Name.DenoLoop,
    about: "peers/minimal_loop.ts: poll, read and write through FFI with offload off; one thread",
    start: () => {
      const path = decodeURI(new URL(MINIMAL_LOOP, import.meta.url).pathname);
      return { program: Deno.execPath(), args: ["run", "--quiet", "--allow-ffi", path, ...DEVICES] };
    },
  },
  {
    name: Name.Socat,
    about: "two TUN devices, offload off; one thread",
    start: () => ({
      program: "socat",
      args: ["-b", String(SOCAT_BYTES), ...DEVICES.map((device) => `TUN,tun-name=${device},iff-no-pi`)],
    }),
  },
  peer(Name.WireguardGo, "wireguard_go", `its package tun, with offload; ${CUTS} and more`),
  peer(Name.TunRs, "tun_rs", `the crate's recv_multiple and send_multiple, with offload; ${CUTS}`),
  { name: Name.Veth, about: "no relay: the kernel forwards between two pairs of veth", start: () => "veth" },
];

/** The contenders of these names, in the order of {@linkcode Name}. */
export function entrants(...names: Name[]): Entrant[] {
  return ENTRANTS.filter(({ name }) => (names as string[]).includes(name));
}
