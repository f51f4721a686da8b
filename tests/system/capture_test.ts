/** Captures beside other programs': tshark reads what is written, and what tcpdump writes is read. */

import { deepEqual, equal, match, ok, rejects, throws } from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { Capture, parseCapture, PcapngWriter, readCapture } from "@warren/tunnel/capture";
import { CapturePipe, openCaptureFile, openWireshark } from "@warren/tunnel/capture_sink";
import { Direction, PacketPool, Verdict } from "@warren/tunnel/core";
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

systemTest("--capture writes what passes a script's device, to a file and to a pipe", {
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
  match(dry.stderr, /^warren: Cannot write capture ".*": it is there already: /);
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

Deno.test("A capture's pipe loses what is too much for its reader, and counts it; packets never wait", async () => {
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

Deno.test("openCaptureFile() overwrites nothing, and says what is wrong", async () => {
  await using folder = new Folder();
  const path = `${folder.path}/a.pcapng`;
  Deno.writeTextFileSync(path, "mine");
  throws(
    () => openCaptureFile(path),
    /^AlreadyExists: Cannot write capture ".*a\.pcapng": it is there already: choose/,
  );
  throws(() => openCaptureFile(`${folder.path}/b/a.pcapng`), /there is no folder ".*\/b"$/);
  throws(() => openCaptureFile(`${folder.path}/c`, { files: 0 }), RangeError);
  equal(Deno.readTextFileSync(path), "mine");
});

Deno.test("openWireshark() says so where it is not installed", {
  ignore: Deno.build.os !== "linux",
}, () => {
  const path = Deno.env.get("PATH")!;
  Deno.env.set("PATH", "/nowhere");
  try {
    throws(openWireshark, /^NotFound: Cannot start wireshark: it is not there: install it$/);
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
