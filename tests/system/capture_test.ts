/** Captures beside other programs': tshark reads what is written, and what tcpdump writes is read. */

import { deepEqual, equal, match, ok, rejects, throws } from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { Capture, parseCapture, PcapngWriter, readCapture } from "@warren/tunnel/capture";
import { CapturePipe, openCaptureFile, openWireshark } from "@warren/tunnel/capture_sink";
import { Direction, PacketPool, Verdict } from "@warren/tunnel/core";
import { openProfile } from "../../runtime/script/profile.ts";
import { encodePacket } from "../kit/packet_text.ts";
import { command, openNamespace, systemTest } from "../kit/system.ts";
import { judge, ping, Running } from "../kit/traffic.ts";

const SCRIPT = fileURLToPath(new URL("../../scripts/capture.ts", import.meta.url));
const SETTINGS = fileURLToPath(new URL("../../deno.json", import.meta.url));
const HELLO = 'udp 10.9.0.1:5000 > 192.0.2.1:5300 "hello"';

/** A folder of a test, removed after it. */
class Folder implements AsyncDisposable {
  readonly path = Deno.makeTempDirSync({ prefix: "warren-capture-" });

  get names(): string[] {
    return Array.from(Deno.readDirSync(this.path), ({ name }) => name).sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

/** What tshark says of each packet of a file, by these fields. */
async function tshark(path: string, ...fields: string[]): Promise<string[]> {
  const words = fields.flatMap((field) => ["-e", field]);
  const { stdout } = await command("tshark", [
    "-r",
    path,
    "-n",
    "-T",
    "fields",
    "-E",
    "separator=;",
    ...words,
  ]);
  return stdout.trimEnd().split("\n");
}

systemTest("tshark reads interfaces, directions, verdicts and comments of a capture", {
  programs: ["tshark"],
}, async () => {
  await using folder = new Folder();
  const path = `${folder.path}/a.pcapng`;
  {
    using file = openCaptureFile(path);
    const writer = new PcapngWriter(file, { comment: "the whole", snapLength: 30 });
    const [first, second] = [writer.addInterface("tun0"), writer.addInterface("far", "the other side")];
    const packet = new PacketPool().from(encodePacket(HELLO))!;
    const comment = new TextEncoder().encode("look: größer");
    writer.write(packet, first!, 1_763_856_000_123.456, Direction.Outbound, Verdict.Pass);
    writer.write(packet, second!, 1_763_856_001_000, Direction.Inbound, Verdict.Drop, comment);
    writer.write(packet, second!, 1_763_856_002_000, Direction.Inbound, Verdict.Reply);
    writer.flush();
  }
  const lines = await tshark(
    path,
    "frame.time_epoch",
    "frame.interface_name",
    "frame.interface_description",
    "frame.packet_flags_direction",
    "frame.verdict.ebpf_xdp",
    "frame.comment",
    "frame.len",
    "frame.cap_len",
    "udp.dstport",
  );
  deepEqual(lines.map((line) => line.replace(/^(\d+\.\d{6})\d*/, "$1")), [
    "1763856000.123456;tun0;;0x00000002;2;;33;30;5300",
    "1763856001.000000;far;the other side;0x00000001;1;look: größer;33;30;5300",
    "1763856002.000000;far;the other side;0x00000001;3;;33;30;5300",
  ]);
});

systemTest(
  "scripts/capture.ts writes every ping and its answer",
  { programs: ["ip", "ping", "tshark"] },
  async () => {
    await using namespace = await openNamespace();
    await namespace.command("sysctl", ["-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
    await using folder = new Folder();
    const args = [
      "run",
      "--no-prompt",
      "--allow-ffi",
      `--allow-write=${folder.path}`,
      "--config",
      SETTINGS,
      SCRIPT,
    ];
    const shell = ["-c", 'cd "$0" && exec "$@"', folder.path, Deno.execPath(), ...args];
    const child = namespace.spawn("sh", shell);
    await using running = new Running(child, child.stdout, child.stderr);
    await running.said(/is open/);
    await ping(namespace, "10.9.0.77", "-c", "5", "-i", "0.05");
    const { code, heard } = await running.stop("SIGINT");
    equal(code, 0, heard);
    equal(folder.names.length, 1);
    match(folder.names[0]!, /^capture_00001_\d{8}-\d{6}\.pcapng$/);
    const path = `${folder.path}/${folder.names[0]}`;
    const lines = await tshark(path, "icmp.type", "icmp.seq", "frame.packet_flags_direction");
    const expected = [1, 2, 3, 4, 5].flatMap((seq) => [`8;${seq};0x00000002`, `0;${seq};0x00000001`]);
    deepEqual(lines, expected);
    deepEqual(await judge(new Blob([await Deno.readFile(path)])), { packets: 10, faults: [] });
  },
);

systemTest("--capture writes the packets that pass a script's device to a file and to a pipe", {
  programs: ["ip", "ping", "tshark"],
}, async () => {
  await using namespace = await openNamespace();
  await namespace.command("sysctl", ["-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
  await using folder = new Folder();
  const path = `${folder.path}/a.pcapng`;
  const echo = fileURLToPath(new URL("../../scripts/icmp_echo.ts", import.meta.url));
  const run =
    `"${Deno.execPath()}" run --no-prompt --allow-ffi --allow-write="${folder.path}" --config "${SETTINGS}" "${echo}" --address 10.9.0.1/24`;
  for (const where of [`--capture "${path}" --filter "icmp[0] = 8 or inbound"`, `--capture - > "${path}"`]) {
    const child = namespace.spawn("sh", ["-c", `exec ${run} ${where}`]);
    await using running = new Running(child, child.stdout, child.stderr);
    await running.said(/is open/);
    await ping(namespace, "10.9.0.77", "-c", "3", "-i", "0.05");
    const { code, heard } = await running.stop("SIGINT");
    equal(code, 0, heard);
    const lines = await tshark(path, "icmp.type", "frame.interface_name");
    deepEqual(lines, [1, 2, 3].flatMap(() => ["8;tun", "0;tun"]));
    Deno.removeSync(path);
  }
  const dry = await command("sh", ["-c", `${run} --dry-run --capture "${folder.path}"`], { check: false });
  equal(dry.code, 1);
  match(dry.stderr, /^warren: Cannot write capture ".*": it exists already: /);
  equal((await command("sh", ["-c", `${run} --dry-run --capture "${path}"`])).code, 0);
  deepEqual(folder.names, []);
});

systemTest("A capture in a pipe is read as it comes", { programs: ["tshark"] }, async () => {
  const child = new Deno.Command("tshark", {
    args: ["-r", "-", "-n", "-l", "-T", "fields", "-e", "udp.dstport"],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  await using running = new Running(child, child.stdout, child.stderr);
  {
    await using pipe = new CapturePipe(child.stdin);
    const writer = new PcapngWriter(pipe);
    const tun = writer.addInterface("tun0");
    const packet = new PacketPool().from(encodePacket(HELLO))!;
    for (let i = 0; i < 3; i++) {
      writer.write(packet, tun, i, Direction.Outbound);
      writer.flush();
    }
    await pipe.drained;
    equal(pipe.lost, 0);
  }
  await running.said(/(5300\n){3}/);
});

Deno.test("CapturePipe loses and counts data that its reader is too slow for; packets never wait", async () => {
  const held = Promise.withResolvers<void>();
  const pipe = new CapturePipe(new WritableStream({ write: () => held.promise }));
  const blocks = new Uint8Array(1024 * 1024);
  for (let i = 0; i < 10; i++) pipe.write(blocks);
  equal(pipe.lost, 2 * blocks.length);
  held.resolve();
  await pipe.drained;
  pipe.write(blocks);
  equal(pipe.lost, 2 * blocks.length);
  await pipe[Symbol.asyncDispose]();
  const broken = new CapturePipe(new WritableStream({ write: () => Promise.reject(new Error("gone")) }));
  broken.write(blocks);
  await broken.drained;
  broken.write(blocks);
  deepEqual([broken.lost, broken.hasEnded], [2 * blocks.length, true]);
});

Deno.test("CapturePipe counts lost packets, and waits half a second for its reader", async () => {
  const pipe = new CapturePipe(new WritableStream({ write: () => new Promise(() => {}) }));
  const writer = new PcapngWriter(pipe);
  const tun = writer.addInterface("tun0");
  const packet = new PacketPool().from(encodePacket(HELLO))!;
  const count = 130_000;
  for (let i = 0; i < count; i++) writer.write(packet, tun, i, Direction.Outbound);
  writer.flush();
  const some = pipe.lostPackets;
  ok(some > 0 && some < count, String(some));
  const start = performance.now();
  await pipe[Symbol.asyncDispose]();
  ok(performance.now() - start < 5000);
  equal(pipe.lostPackets, count);
});

Deno.test("Capture files take turns by size, and the oldest is removed", async () => {
  await using folder = new Folder();
  const path = `${folder.path}/trace.pcapng`;
  using file = openCaptureFile(path, { rotateBytes: 300, files: 3 });
  const capture = new Capture({ write: (blocks: Uint8Array) => file.write(blocks) }, { flushInterval: 0 });
  const packet = new PacketPool().from(encodePacket(HELLO))!;
  for (let now = 1; now <= 20; now++) {
    capture.outbound({ packets: [packet], length: 1 } as never, { now } as never);
    capture.tick();
  }
  capture.close();
  equal(folder.names.length, 3);
  deepEqual(file.paths.map((path) => path.slice(folder.path.length + 1)), folder.names);
  const times = file.paths.flatMap((path) =>
    [...parseCapture([Deno.readFileSync(path)])].map(({ time }) => time)
  );
  deepEqual(times, times.map((_, i) => 20 - times.length + 1 + i));
  ok(times.length > 3);
});

Deno.test("openCaptureFile() overwrites nothing, and reports errors", async () => {
  await using folder = new Folder();
  const path = `${folder.path}/a.pcapng`;
  Deno.writeTextFileSync(path, "mine");
  throws(
    () => openCaptureFile(path),
    /^AlreadyExists: Cannot write capture ".*a\.pcapng": it exists already: choose/,
  );
  throws(() => openCaptureFile(`${folder.path}/b/a.pcapng`), /folder ".*\/b" does not exist$/);
  throws(() => openCaptureFile(`${folder.path}/c`, { files: 0 }), RangeError);
  equal(Deno.readTextFileSync(path), "mine");
});

Deno.test("openCaptureFile() names the permission that it lacks", { permissions: { write: false } }, () => {
  throws(
    () => openCaptureFile("a.pcapng"),
    /^NotCapable: Cannot write capture "a\.pcapng": deno has no permission: run it with --allow-write$/,
  );
});

Deno.test("Files of captures and profiles are this user's alone to read", async () => {
  await using folder = new Folder();
  const umask = Deno.build.os === "windows" ? undefined : Deno.umask(0);
  try {
    openCaptureFile(`${folder.path}/a.pcapng`)[Symbol.dispose]();
    openCaptureFile(`${folder.path}/b.pcapng`, { rotateBytes: 300 })[Symbol.dispose]();
    using profile = openProfile(`${folder.path}/c.cpuprofile`, { quiet: true });
    profile.start();
  } finally {
    if (umask !== undefined) Deno.umask(umask);
  }
  equal(folder.names.length, 3);
  if (umask === undefined) return;
  for (const name of folder.names) equal(Deno.statSync(`${folder.path}/${name}`).mode! & 0o777, 0o600, name);
});

/** Runs `step` with `console.error` kept; returns its lines. */
function errorsOf(step: () => void): string[] {
  const lines: string[] = [];
  const { error } = console;
  console.error = (line: string) => void lines.push(line);
  try {
    step();
  } finally {
    console.error = error;
  }
  return lines;
}

Deno.test("A file or folder that was removed ends a capture with one line, and throws nothing", {
  ignore: Deno.build.os === "windows",
}, async () => {
  await using folder = new Folder();
  const packet = new PacketPool().from(encodePacket(HELLO))!;
  for (const options of [{}, { rotateBytes: 300 }]) {
    const inside = `${folder.path}/inside`;
    Deno.mkdirSync(inside);
    using file = openCaptureFile(`${inside}/a.pcapng`, options);
    const lines = errorsOf(() => {
      const writer = new PcapngWriter(file);
      const tun = writer.addInterface("tun0");
      for (let i = 0; i < 20; i++) {
        writer.write(packet, tun, i, Direction.Outbound);
        writer.flush();
        if (i === 2) Deno.removeSync(inside, { recursive: true });
      }
    });
    equal(lines.length, 1);
    match(lines[0]!, /^warren: Cannot write capture ".*a.*\.pcapng": .*: the capture ends here$/);
    ok(file.failure instanceof Deno.errors.NotFound);
  }
});

systemTest("A full disk ends a capture with one line; the file can be read, and packets pass", {
  programs: ["unshare", "mount"],
}, async () => {
  await using namespace = await openNamespace();
  await using folder = new Folder();
  const echo = fileURLToPath(new URL("../../scripts/icmp_echo.ts", import.meta.url));
  const run = `mount -t tmpfs -o size=64k none "$0" && exec "$@"`;
  const child = namespace.spawn("unshare", [
    "-m",
    "sh",
    "-c",
    run,
    folder.path,
    Deno.execPath(),
    ...["run", "-A", "--config", SETTINGS, echo, "--address", "10.9.0.1/24"],
    ...["--capture", `${folder.path}/a.pcapng`],
  ]);
  await using running = new Running(child, child.stdout, child.stderr);
  await running.said(/is open/);
  await ping(namespace, "10.9.0.77", "-c", "40", "-i", "0.01", "-s", "1400");
  await running.said(
    /warren: Cannot write capture ".*a\.pcapng": No space left.*: the capture ends here/,
  );
  await ping(namespace, "10.9.0.77", "-c", "3", "-i", "0.05");
  const bytes = Deno.readFileSync(`/proc/${running.pid}/root${folder.path}/a.pcapng`);
  ok([...parseCapture([bytes])].length > 10);
  const { code, heard } = await running.stop("SIGINT");
  equal(code, 0, heard);
  equal(heard.match(/the capture ends here/g)?.length, 1);
});

systemTest("--capture - : a reader that stops, or ends, costs the capture, not packets nor the end", {
  programs: ["ip", "ping"],
}, async () => {
  await using namespace = await openNamespace();
  const echo = fileURLToPath(new URL("../../scripts/icmp_echo.ts", import.meta.url));
  const args = ["run", "-A", "--config", SETTINGS, echo, "--address", "10.9.0.1/24", "--capture", "-"];
  {
    const child = namespace.spawn(Deno.execPath(), args);
    await using running = new Running(child, child.stderr);
    await running.said(/is open/);
    await child.stdout.cancel();
    await ping(namespace, "10.9.0.77", "-c", "10", "-i", "0.05");
    await running.said(
      /warren: Cannot write the capture: its reader has ended: the capture ends here/,
    );
    await ping(namespace, "10.9.0.77", "-c", "3", "-i", "0.05");
    equal((await running.stop("SIGINT")).code, 0);
  }
  const child = namespace.spawn(Deno.execPath(), args);
  await using running = new Running(child, child.stderr);
  await running.said(/is open/);
  await ping(namespace, "10.9.0.77", "-c", "200", "-i", "0.002", "-s", "1400");
  const start = performance.now();
  const { code, heard } = await running.stop("SIGINT");
  ok(performance.now() - start < 5000);
  equal(code, 0, heard);
  match(heard, /warren: the capture lost \d+ packets \(\d+ bytes\): its reader was too slow/);
  await child.stdout.cancel();
});

systemTest("--capture - writes everything to a slow reader", {
  programs: ["ip", "ping", "python3"],
}, async () => {
  await using namespace = await openNamespace();
  await using folder = new Folder();
  const echo = fileURLToPath(new URL("../../scripts/icmp_echo.ts", import.meta.url));
  const run = [Deno.execPath(), "run", "-A", "--config", SETTINGS, echo, "--address", "10.9.0.1/24"];
  const path = `${folder.path}/a.pcapng`;
  // A pipe of one page, whose reader takes 4 KiB each 20 ms: more than a second.
  const python = `import fcntl, os, subprocess, sys, time
r, w = os.pipe()
fcntl.fcntl(w, 1031, 4096)
child = subprocess.Popen(sys.argv[2:], stdout=w)
os.close(w)
with open(sys.argv[1], "wb") as out:
    while True:
        part = os.read(r, 4096)
        if not part: break
        out.write(part)
        time.sleep(0.02)
sys.exit(child.wait())`;
  const child = namespace.spawn("python3", ["-c", python, path, ...run, "--capture", "-"], {
    stdout: "null",
  });
  await using running = new Running(child, child.stderr);
  await running.said(/is open/);
  await ping(namespace, "10.9.0.77", "-c", "100", "-i", "0.002", "-s", "1400");
  await namespace.command("sh", ["-c", "kill -INT $(cat /proc/$0/task/$0/children)", String(child.pid)]);
  const { code, heard } = await running.ended();
  equal(code, 0, heard);
  equal(
    [...parseCapture([Deno.readFileSync(path)])].filter(({ bytes }) => bytes.length === 1428).length,
    200,
  );
});

systemTest("--capture - rejects a terminal, and names alternatives", {
  programs: ["script"],
}, async () => {
  const echo = fileURLToPath(new URL("../../scripts/icmp_echo.ts", import.meta.url));
  for (const flag of ["", "--dry-run"]) {
    const run = `'${Deno.execPath()}' run -A --config '${SETTINGS}' '${echo}' --capture - ${flag}`;
    const { code, stdout } = await command("script", ["-qec", run, "/dev/null"], { check: false });
    match(
      stdout,
      /warren: Cannot write the capture: standard output is a terminal: use --capture - \| wireshark -k -i -/,
    );
    equal(code, 2);
  }
});

systemTest("Times of a capture follow the wall clock when it is set", {
  programs: ["ip", "ping", "faketime"],
}, async () => {
  const library = new Deno.Command("sh", { args: ["-c", "faketime -f +0 sh -c 'echo $LD_PRELOAD'"] })
    .outputSync();
  const preload = new TextDecoder().decode(library.stdout).trim();
  await using namespace = await openNamespace();
  await using folder = new Folder();
  const echo = fileURLToPath(new URL("../../scripts/icmp_echo.ts", import.meta.url));
  const offset = `${folder.path}/offset`;
  Deno.writeTextFileSync(offset, "+0");
  const path = `${folder.path}/a.pcapng`;
  const child = namespace.spawn(Deno.execPath(), [
    ...["run", "-A", "--config", SETTINGS, echo, "--address", "10.9.0.1/24"],
    ...["--capture", path, "--filter", "icmp"],
  ], {
    env: {
      LD_PRELOAD: preload,
      FAKETIME_TIMESTAMP_FILE: offset,
      FAKETIME_NO_CACHE: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
      DONT_FAKE_MONOTONIC: "1",
    },
  });
  await using running = new Running(child, child.stdout, child.stderr);
  await running.said(/is open/);
  const start = Date.now();
  for (const text of ["+0", "+3600", "-3600", "+0"]) {
    Deno.writeTextFileSync(offset, text);
    await ping(namespace, "10.9.0.77", "-c", "1");
  }
  const end = Date.now();
  equal((await running.stop("SIGINT")).code, 0);
  const times = [...parseCapture([Deno.readFileSync(path)])].map(({ time }) => time);
  equal(times.length, 8);
  times.forEach((time, i) => {
    const seconds = [0, 3600, -3600, 0][i >> 1]!;
    const real = time - seconds * 1000;
    ok(real >= start - 1000 && real <= end + 1000, `packet ${i}: ${time}, from ${start} to ${end}`);
  });
});

Deno.test("openWireshark() throws NotFound where it is not installed", {
  ignore: Deno.build.os !== "linux",
}, () => {
  const path = Deno.env.get("PATH")!;
  Deno.env.set("PATH", "/nowhere");
  try {
    throws(openWireshark, /^NotFound: Cannot start wireshark: it is not installed$/);
  } finally {
    Deno.env.set("PATH", path);
  }
});

systemTest("readCapture() reads tcpdump's captures as tshark does", {
  programs: ["ip", "ping", "tcpdump", "tshark"],
}, async () => {
  await using namespace = await openNamespace();
  await using folder = new Folder();
  const path = `${folder.path}/a.pcap`;
  const child = namespace.spawn("tcpdump", ["-Z", "root", "-i", "lo", "-U", "-w", path, "-c", "6", "icmp"]);
  await using running = new Running(child, child.stdout, child.stderr);
  await running.said(/listening on/);
  await ping(namespace, "127.0.0.1", "-c", "3", "-i", "0.05");
  await running.ended();
  const lines = await tshark(path, "frame.time_epoch", "frame.len");
  using file = await Deno.open(path);
  const read = [];
  for await (const { time, bytes, interface: { linkType } } of readCapture(file.readable)) {
    read.push(`${(time / 1000).toFixed(6)};${bytes.length}`);
    equal(linkType, 1);
  }
  deepEqual(read, lines.map((line) => line.replace(/^(\d+\.\d{6})\d*/, "$1")));
  equal(read.length, 6);
  await rejects(async () => {
    for await (const _ of readCapture(new Blob(["no capture at all, this"]).stream()));
  }, SyntaxError);
});
