/**
 * Real programs through `scripts/nat.ts`, which stands on a router between two clients and two servers:
 *
 *     one 10.9.1.2 ──┐
 *                  router ─► device "inside" ─► nat.ts ─► device "outside" ─ near 192.0.2.1 ── distant 203.0.113.2
 *     two 10.9.2.2 ──┘                                      198.51.100.1
 */

import assert from "node:assert/strict";
import { pseudoHeaderSumIpv4 } from "@warren/tunnel/transport_checksum";
import { Direction } from "@warren/tunnel/core";
import { Napt44 } from "@warren/tunnel/nat";
import { encodePacket, formatPacket } from "../kit/packet_text.ts";
import { TestPipeline } from "../kit/pipeline.ts";
import { dig, fetchText, nameServer, scan, type Server, traceroute, webServer } from "../kit/servers.ts";
import { link, type Namespace, openNamespace, runModule, systemTest } from "../kit/system.ts";
import {
  Capture,
  endCaptures,
  firstAnswer,
  iperf,
  judge,
  kernelCounters,
  ping,
  protocolCounter,
  startScript,
} from "../kit/traffic.ts";

const NEEDS = {
  programs: [
    ...["curl", "dig", "dnsmasq", "ip", "iperf3", "nginx", "nmap", "ping", "sysctl", "tcpdump", "traceroute"],
    "tshark",
  ],
};
const OUTSIDE = "198.51.100.1";
const DISTANT = "203.0.113.2";
const CLIENTS = ["10.9.1.2", "10.9.2.2"] as const;
const INSIDE = "net 10.9.0.0/16";

/** The namespaces of the drawing, and the script. */
class Lab implements AsyncDisposable {
  readonly #undo: AsyncDisposableStack;
  readonly router: Namespace;
  readonly clients: Namespace[];
  readonly near: Namespace;
  readonly distant: Namespace;

  private constructor(
    undo: AsyncDisposableStack,
    [router, one, two, near, distant]: Namespace[],
  ) {
    this.#undo = undo;
    this.router = router!;
    this.clients = [one!, two!];
    this.near = near!;
    this.distant = distant!;
  }

  static async open(...flags: string[]): Promise<Lab> {
    await using undo = new AsyncDisposableStack();
    const namespaces: Namespace[] = [];
    for (let i = 0; i < 5; i++) namespaces.push(undo.use(await openNamespace()));
    const [router, one, two, near, distant] = namespaces as [Namespace, ...Namespace[]];
    const settings = ["net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0"];
    for (const namespace of [router, near!]) {
      await namespace.command("sysctl", ["-qw", ...settings, "net.ipv6.conf.default.disable_ipv6=1"]);
    }
    for (const [i, client] of [one!, two!].entries()) {
      const network = `10.9.${i + 1}`;
      await link(
        { namespace: client, name: "veth", addresses: [`${network}.2/24`] },
        { namespace: router, name: `client${i}`, addresses: [`${network}.1/24`] },
      );
      await client.command("ip", ["route", "add", "default", "via", `${network}.1`]);
    }
    await link(
      { namespace: near!, name: "veth", addresses: ["203.0.113.1/24"] },
      { namespace: distant!, name: "veth", addresses: [`${DISTANT}/24`] },
    );
    undo.use(await startScript(router, "nat.ts", ...flags));
    await router.command("ip", ["link", "set", "outside", "netns", near!.name]);
    await near!.command("ip", ["address", "add", "192.0.2.1/24", "dev", "outside"]);
    await near!.command("ip", ["link", "set", "outside", "up"]);
    await near!.command("ip", ["route", "add", "198.51.100.0/24", "dev", "outside"]);
    await distant!.command("ip", ["route", "add", "default", "via", "203.0.113.1"]);
    await router.command("ip", ["route", "add", "203.0.113.0/24", "dev", "inside"]);
    for (const client of [one!, two!]) await firstAnswer(client, DISTANT);
    return new Lab(undo.move(), namespaces);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#undo.disposeAsync();
  }
}

/** A web server that answers with one line, which says who asked. */
function serve(namespace: Namespace, text: string): Promise<Server> {
  return webServer(namespace, "listen 80;", `return 200 "${text} for $remote_addr";`);
}

/** The faults that tshark finds, but for sums that a device with offload has not got yet. */
async function faultsOf({ file, packets }: Capture): Promise<string[]> {
  const { faults, packets: found } = await judge(file);
  assert.equal(found, packets.length);
  return faults.filter((fault) => {
    const [number, what] = fault.split(": ");
    return !/^bad (tcp|udp) checksum$/.test(what!) || !isUnfinished(packets[Number(number) - 1]!);
  });
}

/** Whether what stands in the checksum's place is the sum of the pseudo-header alone; errors quote packets as they came. */
function isUnfinished(packet: Uint8Array): boolean {
  if (packet[9] === 1) return isUnfinished(packet.subarray(28));
  const view = new DataView(packet.buffer, packet.byteOffset);
  const [src, dst, protocol] = [view.getUint32(12), view.getUint32(16), packet[9]!];
  const sum = pseudoHeaderSumIpv4(src, dst, protocol, view.getUint16(2) - 20);
  return view.getUint16(20 + (protocol === 6 ? 16 : 6)) === sum;
}

/** What the kernel has lost so far of packets on their way out: before the script, and where they are received. */
async function lostByKernel({ router, distant }: Lab): Promise<number> {
  const { dropped } = (await kernelCounters(router, "inside")).tx;
  return dropped + await protocolCounter(distant, "UdpRcvbufErrors");
}

for (const flags of [[], ["--no-offload"]]) {
  const how = flags.length === 0 ? "with offload" : "without offload";

  systemTest(
    `nat.ts passes curl, dig, ping, traceroute, nmap and iperf3 of several clients ${how}`,
    NEEDS,
    async () => {
      await using lab = await Lab.open(...flags);
      const { clients, near, distant } = lab;
      await using outside = await Capture.open(near, "outside", "ip", 65_535);
      await using _web = await serve(distant, "distant");
      for (const client of clients) {
        assert.equal(await fetchText(client, `http://${DISTANT}/`), `distant for ${OUTSIDE}`);
      }
      const pings = await Promise.all(
        clients.map((client) => ping(client, "-c", "5", "-i", "0.1", "-w", "10", DISTANT)),
      );
      assert.deepEqual(pings.map(({ answered, odd }) => [answered.length, odd]), [[5, []], [5, []]]);

      const long = await ping(clients[0]!, "-c", "3", "-i", "0.1", "-w", "10", "-s", "4000", DISTANT);
      assert.deepEqual([long.answered.length, long.odd], [3, []], "fragments");

      // Time exceeded by the router, by what stands behind the NAT, and a port that nobody has.
      assert.deepEqual(await traceroute(clients[1]!, DISTANT), ["10.9.2.1", "192.0.2.1", DISTANT]);

      await using _names = await nameServer(distant, DISTANT, "--host-record=www.example,192.0.2.80");
      for (const client of clients) {
        const { answers, text } = await dig(client, DISTANT, "www.example");
        assert.equal(answers[0]?.split(" ").at(-1), "192.0.2.80", text);
      }
      const ports = await scan(clients[0]!, DISTANT, "-sS", "-p", "22,53,80,443");
      assert.deepEqual(ports, { 22: "closed", 53: "open", 80: "open", 443: "closed" });

      // As much as tcpdump can keep up with.
      await iperf(clients[0]!, distant, DISTANT, "-n", "1M");
      await iperf(clients[1]!, distant, DISTANT, "-n", "1M", "-R");
      await iperf(clients[0]!, distant, DISTANT, "-u", "-b", "5M", "-t", "1");
      await endCaptures(clients[0]!, DISTANT, [outside]);
      assert.deepEqual(await faultsOf(outside), []);
      assert.ok(outside.packets.length > 500);
      assert.ok(
        outside.packets.every((packet) => packet[12] !== 10 && packet[16] !== 10),
        "no inside address",
      );

      for (const reverse of [[], ["-R"]]) {
        const { end } = await iperf(clients[0]!, distant, DISTANT, "-t", "1", "-P", "2", ...reverse);
        assert.ok(end.sum_received.bytes > 1e6, JSON.stringify(end.sum_received));
      }
      const before = await lostByKernel(lab);
      const udp = await iperf(clients[1]!, distant, DISTANT, "-u", "-b", "20M", "-t", "1");
      assert.equal(udp.end.sum!.lost_packets, await lostByKernel(lab) - before);
      const { errors, dropped } = (await kernelCounters(near, "outside")).rx;
      assert.deepEqual({ errors, dropped }, { errors: 0, dropped: 0 });
    },
  );
}

systemTest("nat.ts forwards a port to a client, from outside and from inside", NEEDS, async () => {
  await using lab = await Lab.open();
  const { clients, distant, near } = lab;
  await using _web = await serve(clients[0]!, "client");
  await using leaks = await Capture.open(near, "outside", INSIDE);
  assert.equal(await fetchText(distant, `http://${OUTSIDE}:8080/`), `client for ${DISTANT}`);
  assert.equal(await fetchText(clients[1]!, `http://${OUTSIDE}:8080/`), `client for ${OUTSIDE}`);
  // Its own, too: it sees itself from outside.
  assert.equal(await fetchText(clients[0]!, `http://${OUTSIDE}:8080/`), `client for ${OUTSIDE}`);
  const closed = await distant.command(
    "curl",
    ["-sS", "--connect-timeout", "1", `http://${OUTSIDE}:8081/`],
    { check: false },
  );
  assert.equal(closed.code, 28, "what is not forwarded is not answered");
  const direct = await distant.command("ping", ["-c", "1", "-W", "1", CLIENTS[0]], { check: false });
  assert.notEqual(direct.code, 0);
  // Packets to inside addresses come from outside alone.
  const from = leaks.packets.filter((packet) => packet[12] === 10);
  assert.deepEqual(from, []);
});

/** Flows and errors about them, as both sides of a router see them. */
const CONVERSATION = [
  'outbound udp 10.9.0.5:5000 > 192.0.2.1:53 "question"',
  'inbound udp 192.0.2.1:53 > 198.51.100.1:5000 "answer"',
  "outbound udp 10.9.0.6:6001 > 192.0.2.1:53 payload 20",
  "outbound tcp 10.9.0.5:5000 > 203.0.113.9:80 S seq 1 mss 1460 sackOK wscale 7",
  "inbound tcp 203.0.113.9:80 > 198.51.100.1:5000 SA seq 7 ack 2 mss 1460",
  "outbound tcp 10.9.0.5:5000 > 203.0.113.9:80 A seq 2 ack 8",
  "outbound tcp 10.9.0.5:5000 > 203.0.113.9:80 PA seq 2 ack 8 payload 100",
  "outbound icmp 10.9.0.6 > 192.0.2.1 type 8 id 7 seq 1 payload 56",
  "inbound icmp 192.0.2.1 > 198.51.100.1 type 0 id 7 seq 1 payload 56",
  "outbound icmp 10.9.0.6 > 192.0.2.1 type 13 id 9 seq 1 payload 12",
  "inbound icmp 192.0.2.9 > 198.51.100.1 type 11 { udp 198.51.100.1:6001 > 192.0.2.1:53 payload 20 cut 28 }",
  "inbound icmp 192.0.2.1 > 198.51.100.1 type 3 code 3 { udp 198.51.100.1:6001 > 192.0.2.1:53 payload 20 }",
  "inbound icmp 192.0.2.9 > 198.51.100.1 type 3 code 4 rest 1400 { tcp 198.51.100.1:5000 > 203.0.113.9:80 PA seq 2 ack 8 payload 100 }",
  "inbound icmp 192.0.2.9 > 198.51.100.1 type 11 { tcp 198.51.100.1:5000 > 203.0.113.9:80 PA seq 2 ack 8 payload 100 cut 28 }",
  "inbound icmp 192.0.2.9 > 198.51.100.1 type 11 { icmp 198.51.100.1 > 192.0.2.1 type 8 id 7 seq 1 payload 56 cut 60 }",
  'outbound icmp 10.9.0.5 > 192.0.2.1 type 3 code 3 { udp 192.0.2.1:53 > 10.9.0.5:5000 "answer" }',
  'outbound icmp 10.9.0.9 > 192.0.2.1 type 11 { udp 192.0.2.1:53 > 10.9.0.5:5000 "answer" cut 28 }',
];

systemTest(
  "Napt44 makes of packets and errors what the kernel's masquerading does",
  { programs: ["ip", "nft", "sysctl"] },
  async () => {
    await using namespace = await openNamespace();
    const settings = [
      "net.ipv4.ip_forward=1",
      "net.ipv4.conf.all.rp_filter=0",
      "net.ipv4.conf.default.rp_filter=0",
    ];
    await namespace.command("sysctl", ["-qw", ...settings, "net.ipv6.conf.default.disable_ipv6=1"]);
    const rules = `table ip nat {
      chain postrouting { type nat hook postrouting priority 100; oifname "out0" masquerade; }
    }`;
    await namespace.command("nft", ["-f", "-"], { stdin: rules });
    const steps = CONVERSATION.map((line) =>
      [line.split(" ")[0]!, line.slice(line.indexOf(" ") + 1)] as const
    );
    // The kernel's router takes one off the time to live.
    const packets = steps.map(([direction, text]) => {
      const at = text.indexOf(" {");
      const longer = at < 0 ? `${text} ttl 65` : `${text.slice(0, at)} ttl 65${text.slice(at)}`;
      return [direction, encodePacket(longer).toHex()];
    });
    const kernel = await runModule<string[]>(namespace, new URL("./nat_scenario.ts", import.meta.url), [
      JSON.stringify(packets),
    ]);
    const test = new TestPipeline(new Napt44({ outside: OUTSIDE, inside: "10.9.0.0/16" }));
    const ours = steps.map(([direction, text]) => {
      test.send(direction === "outbound" ? Direction.Outbound : Direction.Inbound, encodePacket(text));
      test.settle();
      const { far, device } = test.receive();
      return [...far, ...device].map(formatPacket).join();
    });
    assert.deepEqual(
      ours,
      kernel.map((packet) => packet === "" ? "" : formatPacket(Uint8Array.fromHex(packet))),
    );
    assert.ok(ours.every((packet) => packet !== ""));
  },
);
