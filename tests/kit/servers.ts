/** Servers for system tests (nginx, dnsmasq), and the programs that ask them (curl, dig, nmap, traceroute). */

import type { Namespace } from "./system.ts";
import { Running } from "./traffic.ts";

/** A server that runs. Disposing of it ends it. */
export interface Server extends AsyncDisposable {
  /** What it says. */
  readonly running: Running;
}

/** nginx in a namespace, told by the lines of its `server` block; returns when it listens. */
export async function webServer(namespace: Namespace, ...lines: string[]): Promise<Server> {
  await using undo = new AsyncDisposableStack();
  const folder = await Deno.makeTempDir({ prefix: "warren-nginx-" });
  undo.defer(() => Deno.remove(folder, { recursive: true }));
  const places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  const configuration = `daemon off; master_process off; pid "${folder}/pid"; error_log stderr notice;
    events {}
    http {
      access_log off; ${places.map((name) => `${name}_temp_path "${folder}/${name}";`).join(" ")}
      server { ${lines.join(" ")} }
    }`;
  await Deno.writeTextFile(`${folder}/nginx.conf`, configuration);
  const words = ["-c", `${folder}/nginx.conf`, "-p", folder, "-e", "stderr"];
  const child = namespace.spawn("nginx", words, { stdout: "null" });
  const running = undo.use(new Running(child, child.stderr));
  await running.said(/using the "epoll"/);
  const all = undo.move();
  return { running, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

/** dnsmasq at an address of a namespace, which knows nothing but what the flags tell it; returns when it listens. */
export async function nameServer(
  namespace: Namespace,
  address: string,
  ...flags: string[]
): Promise<Running> {
  const words = [
    ...["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"],
    ...["--pid-file=", "--log-facility=-", "--log-queries"],
    ...["--bind-interfaces", `--listen-address=${address}`],
  ];
  const child = namespace.spawn("dnsmasq", [...words, ...flags], { stdout: "null" });
  const running = new Running(child, child.stderr);
  try {
    await running.said(/started, version/);
    return running;
  } catch (error) {
    await running[Symbol.asyncDispose]();
    throw error;
  }
}

/** What curl gets of a URL; "" when it gets nothing in 2 s. */
export async function fetchText(namespace: Namespace, url: string): Promise<string> {
  const flags = ["-s", "-g", "--noproxy", "*", "--max-time", "2"];
  const { stdout } = await namespace.command("curl", [...flags, url], { check: false });
  return stdout;
}

/** What dig says of an answer. */
export interface Dug {
  /** `NOERROR` and the like; `none`: no answer. */
  readonly status: string;
  /** Such as `qr`, `rd`, `tc`. */
  readonly flags: string[];
  /** `NAME TTL CLASS TYPE DATA`, in order of text. */
  readonly answers: string[];
  /** All of it. */
  readonly text: string;
}

/** Asks a name server once, with dig's own words. */
export async function dig(namespace: Namespace, server: string, ...words: string[]): Promise<Dug> {
  const args = [`@${server}`, "+tries=1", "+timeout=5", "+noall", "+comments", "+answer", ...words];
  const { stdout } = await namespace.command("dig", args, { check: false });
  const answers = stdout.split("\n").filter((line) => line !== "" && !line.startsWith(";"));
  return {
    status: /status: (\w+)/.exec(stdout)?.[1] ?? "none",
    flags: /flags: ([a-z ]*);/.exec(stdout)?.[1]?.split(" ") ?? [],
    answers: answers.map((line) => line.replace(/\s+/g, " ")).sort(),
    text: stdout,
  };
}

/** What nmap calls each port, with its own flags. */
export async function scan(
  namespace: Namespace,
  address: string,
  ...flags: string[]
): Promise<Record<string, string>> {
  const family = address.includes(":") ? ["-6"] : [];
  const words = [...family, "-Pn", "-n", "--max-retries", "1", "-oG", "-", ...flags, address];
  const { stdout } = await namespace.command("nmap", words);
  return Object.fromEntries(
    Array.from(stdout.matchAll(/(\d+)\/([a-z|]+)\//g), ([, port, state]) => [port, state]),
  );
}

/** The routers on the way to an address, and who answers there, as traceroute finds them; `*`: nobody answered. */
export async function traceroute(namespace: Namespace, address: string): Promise<string[]> {
  const words = ["-n", "-q", "1", "-w", "3", "-m", "8", address];
  const { stdout } = await namespace.command("traceroute", words);
  return Array.from(stdout.matchAll(/^ *\d+ +(\S+)/gm), ([, hop]) => hop!);
}
