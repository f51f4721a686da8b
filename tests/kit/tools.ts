/** Probes of the programs that tests use: a program may be there and still not work. */

/** Thrown by a test that finds out on the way that this machine lacks what it needs: the test is then skipped. */
export class Unavailable extends Error {
  /** @ignore */
  override readonly name = "Unavailable";
}

// Implementation
/** A program that does nothing for so long does not work (seconds). */
const PROBE_LIMIT = "20";
/** The exit codes of `timeout` for a program that it had to end. */
const TIMED_OUT = [124, 137];
const COMPILES = ["-x", "c", "-include", "stdio.h", "-fsyntax-only", "/dev/null"];
/** A probe of each program, as near as possible to its use in tests; others print their version. */
const PROBES: Readonly<Record<string, readonly string[]>> = {
  bash: ["-c", "true"],
  cc: COMPILES,
  dig: ["-v"],
  faketime: ["-f", "+0", "true"],
  ip: ["link", "show", "lo"],
  nft: ["list", "tables"],
  nginx: ["-v"],
  ping: ["-V"],
  python3: ["-c", ""],
  sh: ["-c", "true"],
  socat: ["-V"],
  sysctl: ["-n", "kernel.ostype"],
  tc: ["qdisc", "show", "dev", "lo"],
  tracepath: ["-V"],
  tshark: ["-v"],
  unshare: ["-m", "true"],
  "x86_64-w64-mingw32-gcc": COMPILES,
};

const reasons = new Map<string, string | undefined>();

/**
 * Returns the reason why a program, by name or path, cannot be used here; `undefined` when it works. It is run once.
 */
export function unusable(program: string): string | undefined {
  if (!reasons.has(program)) reasons.set(program, probe(program));
  return reasons.get(program);
}

function probe(program: string): string | undefined {
  if (!isThere(program)) return `no ${program}${program.includes("/") ? "" : " on PATH"}`;
  const words = PROBES[program] ?? ["--version"];
  const bounded = isThere("timeout") ? ["timeout", "-k", "1", PROBE_LIMIT, program] : [program];
  return run([...bounded, ...words], program) ?? (program === "ip" ? probeNetwork() : undefined);
}

/** Devices and network namespaces are what `ip` is for: a container's root may have none. */
function probeNetwork(): string | undefined {
  if (Deno.uid() !== 0) return undefined;
  try {
    Deno.openSync("/dev/net/tun", { read: true, write: true }).close();
  } catch (error) {
    return `/dev/net/tun cannot be opened: ${(error as Error).message}`;
  }
  const name = `warren-probe-${Deno.pid}-${crypto.randomUUID().slice(0, 8)}`;
  const reason = run(["ip", "netns", "add", name], "ip netns") ??
    run(["ip", "netns", "exec", name, "true"], "ip netns");
  run(["ip", "netns", "delete", name], "ip netns");
  return reason;
}

/** Runs a command; returns the reason why it fails, `undefined` when it does not. */
function run([file, ...args]: string[], what: string): string | undefined {
  try {
    const { code, stderr } = new Deno.Command(file!, { args, stdin: "null", stdout: "null", stderr: "piped" })
      .outputSync();
    if (code === 0) return undefined;
    const words = new TextDecoder().decode(stderr).trim().split("\n")[0];
    const end = TIMED_OUT.includes(code) ? `it did not end within ${PROBE_LIMIT} s` : `it ends with ${code}`;
    return `${what} does not work: ${words || end}`;
  } catch (error) {
    return `${what} does not work: ${(error as Error).message}`;
  }
}

function isThere(program: string): boolean {
  const paths = program.includes("/")
    ? [program]
    : (Deno.env.get("PATH") ?? "").split(":").map((folder) => `${folder}/${program}`);
  return paths.some((path) => {
    try {
      return Deno.statSync(path).isFile;
    } catch {
      return false;
    }
  });
}
