/** Real programs' traffic through the scripts, and what tshark thinks of every packet of it. */

import assert from "node:assert/strict";
import { pseudoHeaderSumIpv4, pseudoHeaderSumIpv6 } from "@warren/tunnel/transport_checksum";
import { command, link, type Namespace, openNamespace, systemTest } from "../kit/system.ts";
import {
  Capture,
  captureFile,
  CROSSING,
  Crossing,
  endCaptures,
  firstAnswer,
  iperf,
  judge,
  kernelCounters,
  ping,
  protocolCounter,
  type Running,
  startScript,
} from "../kit/traffic.ts";

const NEEDS = { programs: ["ip", "ping", "iperf3", "tcpdump", "tshark", "sysctl"] };
/** What the tests send; the kernel's own words (router solicitations, MLD) are between link-local addresses. */
const OURS = "net 10.0.0.0/8 or net fd00::/8";

// Specification: the bytes of ping's headers
const IPV4_ECHO = 28;
const IPV6_ECHO = 48;

/**
 * That so many pings are answered, each once and in order; returns how many were sent. By `-w`, ping goes on until
 * it has all answers: without, it waits only twice the longest round trip for the last one.
 */
async function assertAnswered(namespace: Namespace, count: number, ...args: string[]): Promise<number> {
  const { sent, answered, odd } = await ping(namespace, "-c", String(count), "-w", "10", ...args);
  const wanted = Array.from({ length: Math.max(count, answered.length) }, (_, i) => i + 1);
  assert.deepEqual({ answered, odd }, { answered: wanted, odd: [] }, `ping ${args.join(" ")}`);
  return sent;
}

/** Devices with offload show sums that are still to be finished, and super-packets. */
type Offload = "offload" | "no offload";

/** That tshark finds as many packets as were captured, and nothing wrong with them but unfinished sums. */
async function assertFaultless(
  { device, packets, file }: Capture,
  offload: Offload = "no offload",
): Promise<void> {
  const found = await judge(file);
  const faults = found.faults.filter((fault) => {
    const [number, what] = fault.split(": ");
    return offload === "no offload" || !/^bad (tcp|udp) checksum$/.test(what!) ||
      !isUnfinished(packets[Number(number) - 1]!);
  });
  assert.deepEqual({ packets: found.packets, faults }, { packets: packets.length, faults: [] }, device);
}

/** Whether what stands in the checksum's place is the sum of the pseudo-header alone. */
function isUnfinished(packet: Uint8Array): boolean {
  const [src, dst, start, protocol] = packet[0]! >> 4 === 4
    ? [12, 16, 20, packet[9]!]
    : [8, 24, 40, packet[6]!];
  const view = new DataView(packet.buffer, packet.byteOffset);
  const length = start === 20 ? view.getUint16(2) - 20 : view.getUint16(4);
  const sum = start === 20
    ? pseudoHeaderSumIpv4(view.getUint32(src), view.getUint32(dst), protocol, length)
    : pseudoHeaderSumIpv6(packet, src, dst, protocol, length);
  return view.getUint16(start + (protocol === 6 ? 16 : 6)) === sum;
}

function isFrom(packet: Uint8Array, prefix: readonly number[], ipv6Prefix: readonly number[]): boolean {
  const [wanted, offset] = packet[0]! >> 4 === 4 ? [prefix, 12] : [ipv6Prefix, 8];
  return wanted.every((byte, i) => packet[offset + i] === byte);
}

/** That the same packets passed both devices, in the same order in each direction. */
function assertSame(one: Capture, other: Capture): void {
  for (const side of [1, 2]) {
    const [first, second] = [one, other].map(({ packets }) =>
      packets.filter((packet) => isFrom(packet, [10, side, 0], [0xfd, side]))
    );
    assert.equal(first!.length, second!.length, `packets from side ${side}`);
    const differs = first!.findIndex((packet, i) => packet.toHex() !== second![i]!.toHex());
    assert.equal(differs, -1, `packet ${differs} from side ${side} of ${first!.length}`);
  }
}

/**
 * That the relay handed on all that it got, and the kernel dropped nothing on either device. With offload, what is
 * handed on together is counted as one.
 */
async function assertAllPassed(middle: Namespace, offload: Offload): Promise<void> {
  const [left, right] = await Promise.all([
    kernelCounters(middle, "left"),
    kernelCounters(middle, "right"),
  ]);
  const dropped = [left.tx.dropped, right.tx.dropped, left.rx.dropped, right.rx.dropped];
  assert.deepEqual(dropped, [0, 0, 0, 0], "dropped by the kernel");
  if (offload === "offload") return;
  assert.deepEqual([left.tx.packets, left.tx.bytes], [right.rx.packets, right.rx.bytes]);
  assert.deepEqual([right.tx.packets, right.tx.bytes], [left.rx.packets, left.rx.bytes]);
}

/** Two machines of a network, each with an end of a tunnel. */
class Machines implements AsyncDisposable {
  readonly left: Namespace;
  readonly right: Namespace;

  private constructor(left: Namespace, right: Namespace) {
    this.left = left;
    this.right = right;
  }

  static async open(): Promise<Machines> {
    await using undo = new AsyncDisposableStack();
    const left = undo.use(await openNamespace());
    const right = undo.use(await openNamespace());
    await link(
      { namespace: left, name: "veth", addresses: ["192.0.2.1/24"] },
      { namespace: right, name: "veth", addresses: ["192.0.2.2/24"] },
    );
    undo.move();
    return new Machines(left, right);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.left[Symbol.asyncDispose]();
    await this.right[Symbol.asyncDispose]();
  }
}

/** One of the scripts that join two machines, and the far end's URL on each. */
interface Joining {
  readonly script: string;
  readonly far: { readonly left: string; readonly right: string };
}

const UDP_TUNNEL: Joining = {
  script: "plain_udp.ts",
  far: { left: "udp://192.0.2.2:4500?listen=4500", right: "udp://192.0.2.1:4500?listen=4500" },
};
const WEBSOCKET: Joining = {
  script: "websocket.ts",
  far: { left: "ws://192.0.2.2:8080/", right: "ws://192.0.2.2:8080/?listen" },
};

/** Starts one side: 10.9.0.1 and fd09::1 on the left, 10.9.0.2 and fd09::2 on the right. */
function startSide(
  { script, far }: Joining,
  machines: Machines,
  side: "left" | "right",
  offload: Offload = "offload",
): Promise<Running> {
  const number = side === "left" ? 1 : 2;
  const addresses = ["--address", `10.9.0.${number}/24`, "--address", `fd09::${number}/64`];
  return startScript(
    machines[side],
    script,
    "--name",
    "w0",
    "--mtu",
    "1400",
    ...(offload === "offload" ? [] : ["--no-offload"]),
    ...addresses,
    "--far",
    far[side],
  );
}

/** What iperf3 sends in each way: what tcpdump can fall behind by, and no time, in which a fast tunnel carries more. */
const JOINED_BYTES = "16M";

/**
 * That pings of all sizes and iperf3's TCP pass both ways, with no fault on either device: the left one's with offload,
 * the right one's without, which gets what was cut.
 */
async function assertJoined({ left, right }: Machines, script: string): Promise<void> {
  await using one = await Capture.open(left, "w0", OURS);
  await using other = await Capture.open(right, "w0", OURS);
  for (const size of ["0", "56", "1300"]) {
    const args = ["-s", size, "-i", "0.005"];
    await assertAnswered(left, 100, ...args, "10.9.0.2");
    await assertAnswered(left, 100, ...args, "fd09::2");
    await assertAnswered(right, 100, ...args, "10.9.0.1");
    await assertAnswered(right, 100, ...args, "fd09::1");
  }
  const before = one.packets.length;
  for (const args of [["10.9.0.2"], ["fd09::2"], ["10.9.0.2", "-R"], ["10.9.0.2", "-P", "4"]]) {
    const { end } = await iperf(left, right, args[0]!, "-n", JOINED_BYTES, ...args.slice(1));
    const rate = end.sum_received.bits_per_second / 1e6;
    console.log(`${script}, iperf3 ${args.join(" ")}: ${rate.toFixed(0)} Mbit/s`);
    assert.ok(rate > 1, `${rate} Mbit/s`);
  }
  await endCaptures(left, "10.9.0.2", [one, other]);
  await assertFaultless(one, "offload");
  await assertFaultless(other);
  assert.ok(before >= 2 * 3 * 4 * 100 && one.packets.length > before, `${before}, ${one.packets.length}`);
}

/** That pings pass again after each side was killed and started anew. */
async function assertSurvives(joining: Joining): Promise<void> {
  await using machines = await Machines.open();
  const { left, right } = machines;
  await using second = await startSide(joining, machines, "right");
  await using first = await startSide(joining, machines, "left");
  await firstAnswer(left, "10.9.0.2");
  await first.stop("SIGKILL");
  await using _again = await startSide(joining, machines, "left");
  await firstAnswer(left, "fd09::2");
  await second.stop("SIGKILL");
  await using _rightAgain = await startSide(joining, machines, "right");
  await firstAnswer(left, "10.9.0.2");
  await assertAnswered(right, 100, "-i", "0.005", "10.9.0.1");
}

function relay(namespace: Namespace, offload: Offload): Promise<Running> {
  const flags = offload === "offload"
    ? ["--far", "tun:right"]
    : ["--no-offload", "--far", "tun:right?offload=no"];
  return startScript(namespace, "relay.ts", "--name", "left", ...flags);
}

systemTest("judge() finds bad checksums and packets cut short", NEEDS, async () => {
  const echo = Uint8Array.fromHex("4500001c00004000400126cd0a0900010a0900020800f7fd00010001");
  const udp = Uint8Array.fromHex("4500001c00004000401126bd0a0900010a09000203e807d00008e011");
  const spoil = (packet: Uint8Array, offset: number) =>
    packet.map((byte, i) => i === offset ? byte ^ 0x55 : byte);
  const forged = [echo, udp, spoil(echo, 10), spoil(echo, 24), spoil(udp, 26), udp.subarray(0, 26)];
  const { packets, faults } = await judge(captureFile(forged));
  assert.equal(packets, 6);
  assert.deepEqual(faults.map((fault) => fault.split(": ").slice(0, 2).join(": ")), [
    "3: bad ip checksum",
    "4: bad icmp checksum",
    "5: bad udp checksum",
    "6: malformed",
  ]);
});

systemTest(
  "icmp_echo.ts answers ping and ping -6 of every size up to the MTU, at any rate",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    await using script = await startScript(namespace, "icmp_echo.ts");
    await using capture = await Capture.open(namespace, "tun0", OURS);
    let sent = 1;
    for (
      const [family, destination, most] of [
        ["-4", "10.9.0.77", 1500 - IPV4_ECHO],
        ["-6", "fd09::77", 1500 - IPV6_ECHO],
      ] as const
    ) {
      for (const size of [0, 1, 7, 56, 57, 1000, most - 1, most]) {
        const args = ["-M", "do", "-s", String(size), "-i", "0.01"];
        sent += await assertAnswered(namespace, 5, family, ...args, destination);
      }
      sent += await assertAnswered(namespace, 500, family, "-i", "0.002", destination);
      sent += await assertAnswered(namespace, 2000, family, "-A", destination);
    }
    await endCaptures(namespace, "10.9.0.78", [capture]);
    await assertFaultless(capture);
    assert.equal(capture.packets.length, 2 * sent);
    const { code, heard } = await script.stop();
    assert.equal(code, 0);
    assert.match(heard, new RegExp(`to this machine ${sent} packets`));
  },
);

systemTest("icmp_echo.ts answers pings as long as an MTU of 9000 and of 65535 allows", NEEDS, async () => {
  for (const mtu of [9000, 65_535]) {
    await using namespace = await openNamespace();
    await using _script = await startScript(namespace, "icmp_echo.ts", "--mtu", String(mtu));
    await using capture = await Capture.open(namespace, "tun0", OURS, mtu);
    // As many at first as ping then has room for when they are answered at once.
    const args = ["-M", "do", "-i", "0.002", "-l", "50"];
    await assertAnswered(namespace, 200, "-4", ...args, "-s", String(mtu - IPV4_ECHO), "10.9.0.77");
    await assertAnswered(namespace, 200, "-6", ...args, "-s", String(mtu - IPV6_ECHO), "fd09::77");
    await endCaptures(namespace, "10.9.0.78", [capture]);
    await assertFaultless(capture);
  }
});

systemTest("relay.ts joins two namespaces for ping and ping -6", NEEDS, async () => {
  await using crossing = await Crossing.open();
  const { left, middle, right } = crossing;
  await using script = await relay(middle, "offload");
  await crossing.route();
  await using one = await Capture.open(middle, "left", OURS);
  await using other = await Capture.open(middle, "right", OURS);
  let sent = 1;
  for (const size of ["0", "56", "1400"]) {
    const args = ["-s", size, "-i", "0.002"];
    sent += await assertAnswered(left, 100, ...args, CROSSING.right.ipv4);
    sent += await assertAnswered(left, 100, ...args, CROSSING.right.ipv6);
    sent += await assertAnswered(right, 100, ...args, CROSSING.left.ipv4);
    sent += await assertAnswered(right, 100, ...args, CROSSING.left.ipv6);
  }
  // ping ends with the answers that it wants, while further requests of its own may be under way: this one is behind.
  sent += await assertAnswered(right, 1, CROSSING.left.ipv6);
  await endCaptures(left, CROSSING.right.ipv4, [one, other]);
  await assertFaultless(one);
  await assertFaultless(other);
  assertSame(one, other);
  assert.equal(one.packets.length, 2 * sent);
  await assertAllPassed(middle, "offload");
  assert.equal((await script.stop()).code, 0);
});

for (const offload of ["offload", "no offload"] as const) {
  systemTest(
    `relay.ts with ${offload} carries iperf3's TCP: one stream, several, reverse, IPv6`,
    NEEDS,
    async (context) => {
      const wanted = 8 << 20;
      await using crossing = await Crossing.open();
      const { left, middle, right } = crossing;
      await using _script = await relay(middle, offload);
      await crossing.route();
      for (
        const [title, address, ...args] of [
          ["one stream", CROSSING.right.ipv4],
          ["four streams", CROSSING.right.ipv4, "-P", "4"],
          ["reverse", CROSSING.right.ipv4, "-R"],
          ["IPv6", CROSSING.right.ipv6],
        ] as const
      ) {
        await context.step(title, async () => {
          await using one = await Capture.open(middle, "left", OURS);
          await using other = await Capture.open(middle, "right", OURS);
          const { end } = await iperf(left, right, address, "-n", String(wanted), ...args);
          // What was under way when the last byte was sent is not in the receiver's sum.
          assert.ok(end.sum_sent.bytes >= wanted, `${end.sum_sent.bytes} bytes sent`);
          assert.ok(end.sum_received.bytes > wanted / 4, `${end.sum_received.bytes} bytes arrived`);
          await endCaptures(left, CROSSING.right.ipv4, [one, other]);
          await assertFaultless(one, offload);
          await assertFaultless(other, offload);
          // What is handed on together looks otherwise behind the relay.
          if (offload === "no offload") assertSame(one, other);
          const least = end.sum_received.bytes / (offload === "offload" ? 65_535 : 1500);
          assert.ok(one.packets.length > least, `${one.packets.length} packets passed`);
          const hasSuper = one.packets.some((packet) =>
            new DataView(packet.buffer, packet.byteOffset).getUint16(packet[0]! >> 4 === 4 ? 2 : 4) > 1500
          );
          assert.equal(hasSuper, offload === "offload", "super-packets");
        });
      }
      const { end } = await iperf(left, right, CROSSING.right.ipv4, "-t", "2");
      console.log(
        `relay.ts with ${offload}, one TCP stream: ${
          (end.sum_received.bits_per_second / 1e9).toFixed(2)
        } Gbit/s`,
      );
    },
  );

  systemTest(
    `relay.ts with ${offload} loses and reorders no datagram of iperf3's`,
    NEEDS,
    async (context) => {
      await using crossing = await Crossing.open();
      const { left, middle, right } = crossing;
      await using _script = await relay(middle, offload);
      await crossing.route();
      for (
        const [length, packetsPerSecond, ...args] of [[64, 10_000], [1400, 10_000], [
          64,
          10_000,
          "-R",
        ]] as const
      ) {
        const title = `${packetsPerSecond} of ${length} bytes a second${args.length > 0 ? ", reverse" : ""}`;
        await context.step(title, async () => {
          await using one = await Capture.open(middle, "left", OURS);
          await using other = await Capture.open(middle, "right", OURS);
          const receiver = args.length > 0 ? left : right;
          const before = await protocolCounter(receiver, "UdpRcvbufErrors");
          const rate = String(length * 8 * packetsPerSecond);
          const words = ["-u", "-l", String(length), "-b", rate, "-t", "1", "-w", "2M", ...args];
          const { end } = await iperf(left, right, CROSSING.right.ipv4, ...words);
          const { packets, lost_packets } = end.sum!;
          assert.ok(packets > packetsPerSecond / 2, `${packets} datagrams sent`);
          // What the receiver's socket had no room for has passed the relay.
          const unread = await protocolCounter(receiver, "UdpRcvbufErrors") - before;
          assert.ok(lost_packets <= unread, `${lost_packets} lost, ${unread} of them behind the relay`);
          assert.deepEqual(end.streams.map(({ udp }) => udp?.out_of_order), [0]);
          await endCaptures(left, CROSSING.right.ipv4, [one, other]);
          await assertFaultless(one, offload);
          await assertFaultless(other, offload);
          // What is handed on together looks otherwise behind the relay.
          if (offload === "no offload") assertSame(one, other);
        });
      }
      await assertAllPassed(middle, offload);
    },
  );
}

systemTest("plain_udp.ts joins two machines", NEEDS, async () => {
  await using machines = await Machines.open();
  await using one = await startSide(UDP_TUNNEL, machines, "left");
  await using other = await startSide(UDP_TUNNEL, machines, "right", "no offload");
  await assertJoined(machines, UDP_TUNNEL.script);
  assert.deepEqual([(await one.stop()).code, (await other.stop()).code], [0, 0]);
});

systemTest("plain_udp.ts works as soon as the other side has started, too", NEEDS, async () => {
  await using machines = await Machines.open();
  await using _left = await startSide(UDP_TUNNEL, machines, "left");
  const { answered } = await ping(machines.left, "-c", "20", "-i", "0.01", "-W", "0.2", "10.9.0.2");
  assert.deepEqual(answered, []);
  await using _right = await startSide(UDP_TUNNEL, machines, "right");
  await firstAnswer(machines.left, "10.9.0.2");
  await assertAnswered(machines.left, 100, "-i", "0.005", "10.9.0.2");
});

systemTest("plain_udp.ts goes on after either side was killed and started anew", NEEDS, async () => {
  await assertSurvives(UDP_TUNNEL);
});

/** An outer network on which the other machine is behind a router: its addresses, and the way to everywhere. */
const OUTER = {
  IPv4: { left: "192.0.2.1", router: "192.0.2.2", right: "198.51.100.1", everywhere: "default" },
  IPv6: { left: "fdee::1", router: "fdee::2", right: "2001:db8::1", everywhere: "::/0" },
} as const;

/**
 * Two machines of which the left one sends everything into its tunnel, its datagrams by an interface, or by a host route
 * of Warren's; the packets that its device has sent after some pings, and how many were answered.
 */
async function everywhereByTunnel(
  outer: typeof OUTER[keyof typeof OUTER],
  query: string,
): Promise<{ sent: number; answered: number }> {
  const six = outer.left.includes(":");
  const [family, length] = six ? ["-6", 64] : ["-4", 24];
  const host = (address: string) => six ? `[${address}]` : address;
  await using left = await openNamespace();
  await using right = await openNamespace();
  await link(
    { namespace: left, name: "veth", addresses: [`${outer.left}/${length}`] },
    { namespace: right, name: "veth", addresses: [`${outer.router}/${length}`] },
  );
  await right.command("ip", ["addr", "add", outer.right, "dev", "lo"]);
  const route = ["route", "add", "default", "via", outer.router, "dev", "veth", "metric", "2000"];
  await left.command("ip", [family, ...route]);
  const there = `udp://${host(outer.right)}:4500?listen=4500${query}`;
  const back = `udp://${host(outer.left)}:4500?listen=${host(outer.right)}:4500`;
  const inner = (number: number) => [`--address`, six ? `fd09::${number}/64` : `10.9.0.${number}/24`];
  const name = ["--name", "w0"];
  await using _right = await startScript(right, "plain_udp.ts", ...name, ...inner(2), "--far", back);
  const all = ["--route", outer.everywhere];
  await using _left = await startScript(left, "plain_udp.ts", ...name, ...inner(1), ...all, "--far", there);
  // An address of the right machine that only the way to everywhere leads to.
  const { answered } = await ping(left, "-c", "20", "-i", "0.1", "-W", "0.5", outer.right);
  return { sent: (await kernelCounters(left, "w0")).tx.packets, answered: answered.length };
}

for (const [family, outer] of Object.entries(OUTER)) {
  systemTest(
    `plain_udp.ts keeps its own ${family} datagrams out of the tunnel that leads to everywhere, with and without an interface`,
    NEEDS,
    async () => {
      for (const query of ["&interface=veth", ""]) {
        const { answered, sent } = await everywhereByTunnel(outer, query);
        // The first ones may be lost while the kernel makes its links known.
        assert.ok(answered >= 5, `${answered} of 20 answered`);
        // The kernel's own, such as router solicitations, are among them.
        assert.ok(sent < 40, `${sent} packets`);
      }
    },
  );
}

systemTest("websocket.ts joins two machines", NEEDS, async () => {
  await using machines = await Machines.open();
  await using other = await startSide(WEBSOCKET, machines, "right", "no offload");
  await using one = await startSide(WEBSOCKET, machines, "left");
  await assertJoined(machines, WEBSOCKET.script);
  assert.deepEqual([(await one.stop()).code, (await other.stop()).code], [0, 0]);
});

systemTest("websocket.ts goes on after either side was killed and started anew", NEEDS, async () => {
  await assertSurvives(WEBSOCKET);
});

systemTest("relay.ts joins two namespaces as its second line says", NEEDS, async () => {
  await using left = await openNamespace();
  await using right = await openNamespace();
  await using script = await startScript(left, "relay.ts");
  await left.command("ip", ["link", "set", "right", "netns", right.name]);
  await right.command("ip", ["address", "add", "10.9.0.2/24", "dev", "right"]);
  await right.command("ip", ["link", "set", "right", "up"]);
  await assertAnswered(left, 100, "-i", "0.005", "10.9.0.2");
  await assertAnswered(right, 100, "-i", "0.005", "10.9.0.1");
  assert.equal((await script.stop()).code, 0);
});

for (const script of ["plain_udp.ts", "websocket.ts"]) {
  systemTest(`${script} joins two machines as its second line says`, NEEDS, async () => {
    await using machines = await Machines.open();
    const { left, right } = machines;
    const far = script === "plain_udp.ts" ? "udp://192.0.2.1:4500" : "ws://192.0.2.1:8080/";
    await using _one = await startScript(left, script);
    await using _other = await startScript(right, script, "--address", "10.9.0.2/24", "--far", far);
    await firstAnswer(right, "10.9.0.1");
    await assertAnswered(left, 20, "-i", "0.01", "10.9.0.2");
  });
}

systemTest("Nothing of these tests is left", NEEDS, async () => {
  const { stdout } = await command("ip", ["netns", "list"]);
  assert.equal(stdout.includes(`warren-${Deno.pid}-`), false);
});
