/** Programs that are there and do not work: the kit's words about them, and tests that need them. */

import { deepEqual, equal, match, rejects } from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { skipUnavailable } from "./system.ts";
import { Unavailable } from "./tools.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** A folder of programs that are shell scripts. */
class Stubs implements Disposable {
  readonly path = Deno.makeTempDirSync();

  add(name: string, script: string): void {
    Deno.writeTextFileSync(`${this.path}/${name}`, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }

  /** The answer of `unusable()` about a program when the stubs come first, or alone, on PATH. */
  ask(program: string, alone = false): string | undefined {
    const code = `import { unusable } from ${JSON.stringify(new URL("./tools.ts", import.meta.url).href)};
      console.log(JSON.stringify({ reason: unusable(${JSON.stringify(program)}) }))`;
    const { stdout } = new Deno.Command(Deno.execPath(), {
      args: ["eval", code],
      env: { PATH: alone ? this.path : `${this.path}:${Deno.env.get("PATH")}` },
    }).outputSync();
    return (JSON.parse(new TextDecoder().decode(stdout)) as { reason?: string }).reason;
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

Deno.test("unusable() tells a program that is missing from one that fails, and why it fails", {
  ignore: Deno.build.os !== "linux",
}, () => {
  using stubs = new Stubs();
  const library = "error while loading shared libraries: libwiretap.so.15: cannot open shared object file";
  stubs.add("tshark", `echo "tshark: ${library}" >&2; exit 127`);
  stubs.add("tcpdump", "exit 1");
  stubs.add("nft", 'echo "Operation not permitted (you must be root)" >&2; exit 1');
  stubs.add("curl", "exit 0");
  stubs.add("iperf3", "kill -SEGV $$");
  Deno.writeTextFileSync(`${stubs.path}/dig`, "not a program", { mode: 0o755 });
  Deno.writeTextFileSync(`${stubs.path}/plain`, "#!/bin/sh\n", { mode: 0o644 });
  equal(stubs.ask("tshark"), `tshark does not work: tshark: ${library}`);
  equal(stubs.ask("tcpdump"), "tcpdump does not work: it ends with 1");
  equal(stubs.ask("nft"), "nft does not work: Operation not permitted (you must be root)");
  equal(stubs.ask("curl"), undefined);
  match(stubs.ask("iperf3")!, /^iperf3 does not work: /);
  match(stubs.ask("dig")!, /^dig does not work: /);
  match(stubs.ask("plain")!, /^plain does not work: /);
  match(stubs.ask("tcpdump", true)!, /^tcpdump does not work: it ends with 1$/);
  equal(stubs.ask("ip", true), "no ip on PATH");
  equal(stubs.ask("/nowhere/wine64"), "no /nowhere/wine64");
});

Deno.test("a test that finds out that something is unavailable is skipped with its reason; other errors pass", async () => {
  const lines: string[] = [];
  const { log } = console;
  console.log = (line: string) => void lines.push(line);
  try {
    await skipUnavailable("a", () => Promise.reject(new Unavailable("Wine does not start:\nfault")));
    await rejects(skipUnavailable("b", () => Promise.reject(new Error("wrong"))), /^Error: wrong$/);
  } finally {
    console.log = log;
  }
  deepEqual(lines, ["skipped: a: Wine does not start: fault"]);
});

Deno.test("system tests whose programs do not work are skipped with their reasons, and none fails", {
  ignore: Deno.build.os !== "linux",
}, () => {
  using stubs = new Stubs();
  const broken = [
    "curl",
    "dig",
    "dnsmasq",
    "faketime",
    "iperf3",
    "linux.uml",
    "nft",
    "nginx",
    "nmap",
    "npm",
    "python3",
  ];
  for (
    const name of [...broken, "ping", "socat", "tcpdump", "tracepath", "traceroute", "tshark", "unshare"]
  ) {
    stubs.add(name, `echo "${name}: cannot open shared object file" >&2; exit 127`);
  }
  const { code, stdout } = new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", "tests/run.ts"],
      "tests/kit/packet_text_test.ts",
      ...["dns", "firewall", "nat"].map((name) => `tests/system/${name}_test.ts`),
    ],
    cwd: ROOT,
    env: { PATH: `${stubs.path}:${Deno.env.get("PATH")}`, NO_COLOR: "1" },
  }).outputSync();
  const text = new TextDecoder().decode(stdout);
  // Not as lines of their own: those would be taken for this test's.
  equal(code, 0, text.replaceAll(/^/gm, "  "));
  match(text, /^skipped: .*: .*tshark does not work: tshark: cannot open shared object file/m);
  match(text, / passed, 0 failed, [1-9]\d* skipped\n$/);
});
