/** The DNS scripts, asked by dig, with dnsmasq as their upstream; tshark looks at every packet. */

import assert from "node:assert/strict";
import { dig, type Dug, nameServer } from "../kit/servers.ts";
import { link, type Namespace, openNamespace, systemTest } from "../kit/system.ts";
import { Capture, judge, ping, Running, scriptCommand } from "../kit/traffic.ts";

const NEEDS = { programs: ["ip", "dig", "dnsmasq", "ping", "tcpdump", "tshark"] };
const RESOLVERS = ["10.9.0.53", "fd09::53"];
const SERVER = "192.0.2.53";
const LONG = Array.from({ length: 3 }, (_, i) => String(i).repeat(250));
/** 20 KB. */
const HUGE = Array.from({ length: 80 }, (_, i) => `${i}`.padEnd(250, "x"));
const LONGEST = Array.from({ length: 8 }, (_, i) => String(i).repeat(250));

const RECORDS = [
  "--local-ttl=300",
  ...["--local=/example/", "--local=/ads/", "--edns-packet-max=4096", "--auth-ttl=300"],
  "--host-record=www.example,192.0.2.80,2001:db8::80",
  "--host-record=cdn.ads,192.0.2.66",
  "--cname=alias.example,www.example",
  "--mx-host=example,mail.example,10",
  "--srv-host=_http._tcp.example,www.example,80,1,2",
  "--txt-record=example,some text",
  `--txt-record=long.example,${LONG.join(",")}`,
  `--txt-record=longest.example,${LONGEST.join(",")}`,
  `--txt-record=huge.example,${HUGE.join(",")}`,
  "--dns-rr=odd.example,65399,c0ffee",
  "--ptr-record=80.113.0.9.in-addr.arpa,www.example",
];

/** Starts a script with variables of the environment; what it prints is heard, too. */
async function start(
  namespace: Namespace,
  script: string,
  env: Record<string, string> = {},
): Promise<Running> {
  const child = namespace.spawn(Deno.execPath(), await scriptCommand(script), { env });
  const running = new Running(child, child.stderr, child.stdout);
  try {
    await running.said(/ is open: /);
    return running;
  } catch (error) {
    await running[Symbol.asyncDispose]();
    throw error;
  }
}

/** That tshark finds nothing wrong with what passed but sums that the kernel left to the device. */
async function assertFaultless(capture: Capture, namespace: Namespace): Promise<void> {
  const last = capture.packets.length;
  await dig(namespace, RESOLVERS[0]!, "end.lan");
  await capture.until(last, (packet) => packet[20] === 0 && packet[21] === 53);
  await capture.close();
  const { faults, packets } = await judge(capture.file);
  assert.ok(packets > 10);
  const fromUs = faults.filter((fault) => {
    const packet = capture.packets[Number(fault.split(":")[0]) - 1]!;
    const start = packet[0]! >> 4 === 4 ? 20 : 40;
    return packet[start]! * 256 + packet[start + 1]! === 53 || /malformed/.test(fault);
  });
  assert.deepEqual(fromUs, []);
}

systemTest(
  "dns_sinkhole.ts answers dig as dnsmasq itself does, and blocks what is listed",
  NEEDS,
  async () => {
    await using client = await openNamespace();
    await using server = await openNamespace();
    await link(
      { namespace: client, name: "veth", addresses: ["192.0.2.1/24"] },
      { namespace: server, name: "veth", addresses: [`${SERVER}/24`] },
    );
    await using upstream = await nameServer(server, SERVER, ...RECORDS);
    const list = await Deno.makeTempFile();
    try {
      await Deno.writeTextFile(list, "# a list\n0.0.0.0 hosts.example\nads\n*.below.example\nnot a name\n");
      await using script = await start(client, "dns_sinkhole.ts", { UPSTREAM: SERVER, BLOCK_LIST: list });
      await script.said(/:5: left out: /);
      await using capture = await Capture.open(client, "tun0", "udp or tcp", 65_535);

      const asked = [
        ["www.example", "A"],
        ["www.example", "AAAA"],
        ["alias.example", "A"],
        ["example", "MX"],
        ["example", "TXT"],
        ["_http._tcp.example", "SRV"],
        ["odd.example", "TYPE65399"],
        ["long.example", "TXT"],
        ["nothing.example", "A"],
        ["www.example", "MX"],
        ["80.113.0.9.in-addr.arpa", "PTR"],
        ["WwW.eXample", "A"],
      ] as const;
      for (const [name, type] of asked) {
        const direct = await dig(client, SERVER, name, type);
        assert.notEqual(direct.status, "none", direct.text);
        // The second time it comes from the cache, the third time over IPv6.
        for (const resolver of [RESOLVERS[0]!, ...RESOLVERS]) {
          const { status, answers, text } = await dig(client, resolver, name, type);
          const forget = (lines: string[]) => lines.map((line) => line.replace(/ \d+ IN /, " IN "));
          assert.deepEqual([status, forget(answers)], [direct.status, forget(direct.answers)], text);
        }
      }
      const asks = (name: string) =>
        upstream.heard.split("\n").filter((line) => line.includes(`] ${name} `)).length;
      // Two types, each by dig and once or, sent again, twice by the script: the others came from its cache.
      assert.ok(asks("example") <= 6, upstream.heard);

      const plain = await dig(client, RESOLVERS[0]!, "long.example", "TXT", "+noedns", "+ignore");
      assert.deepEqual([plain.flags.includes("tc"), plain.answers], [true, []]);
      const longest = await dig(client, RESOLVERS[1]!, "longest.example", "TXT", "+bufsize=4096", "+ignore");
      assert.deepEqual([longest.flags.includes("tc"), longest.answers], [true, []]);
      // dig asks again over TCP.
      const whole = await dig(client, RESOLVERS[0]!, "longest.example", "TXT", "+bufsize=512");
      assert.match(whole.text, /Truncated, retrying in TCP mode/);
      assert.deepEqual([whole.flags.includes("tc"), whole.answers.length], [false, 1]);

      for (const name of ["hosts.example", "cdn.ads", "ads", "x.below.example"]) {
        assert.equal((await dig(client, RESOLVERS[0]!, name)).status, "NXDOMAIN", name);
      }
      assert.deepEqual((await dig(client, RESOLVERS[1]!, "router.lan")).answers, [
        "router.lan. 60 IN A 10.9.0.1",
      ]);
      assert.equal((await dig(client, RESOLVERS[0]!, "other.lan")).status, "NXDOMAIN");
      const reverse = await dig(client, RESOLVERS[0]!, "-x", "10.9.0.1");
      assert.deepEqual(reverse.answers, ["1.0.9.10.in-addr.arpa. 60 IN PTR router.lan."]);
      assert.equal(
        (await dig(client, RESOLVERS[0]!, "www.example", "+edns=1", "+noednsneg")).status,
        "BADVERS",
      );
      assert.equal((await dig(client, RESOLVERS[0]!, "www.example", "+opcode=2")).status, "NOTIMP");
      const { additional } = await dig(client, RESOLVERS[0]!, "www.example", "+dnssec", "+nocookie")
        .then(({ text }) => ({ additional: /EDNS: version: 0, flags:( do)?; udp: (\d+)/.exec(text) }));
      assert.deepEqual(additional?.slice(1), [" do", "1232"]);

      await assertFaultless(capture, client);
      const { code, heard } = await script.stop();
      assert.equal(code, 0, heard);
      assert.match(heard, /3 names in the list; 4 queries blocked/);
    } finally {
      await Deno.remove(list);
    }
  },
);

systemTest(
  "dns_sinkhole.ts answers dig over TCP, beside many connections of another client",
  { programs: [...NEEDS.programs, "python3"] },
  async () => {
    await using client = await openNamespace();
    await using server = await openNamespace();
    await link(
      { namespace: client, name: "veth", addresses: ["192.0.2.1/24"] },
      { namespace: server, name: "veth", addresses: [`${SERVER}/24`] },
    );
    await using _upstream = await nameServer(server, SERVER, ...RECORDS);
    await using script = await start(client, "dns_sinkhole.ts", { UPSTREAM: SERVER });
    await using capture = await Capture.open(client, "tun0", "udp or tcp", 65_535);
    for (const resolver of RESOLVERS) {
      const plain = await dig(client, resolver, "www.example", "+tcp");
      assert.deepEqual(plain.answers.map((line) => line.split(" ").at(-1)), ["192.0.2.80"], plain.text);
      const huge = await dig(client, resolver, "huge.example", "TXT", "+tcp");
      assert.equal(huge.answers.length, 1, huge.text);
      assert.equal(HUGE.every((text) => huge.text.includes(text)), true);
    }
    const several = ["www.example", "mail.example", "example", "MX", "huge.example", "TXT", "router.lan"];
    const { text } = await dig(client, RESOLVERS[0]!, "+tcp", "+keepopen", ...several);
    assert.equal(text.match(/status: (NOERROR|NXDOMAIN)/g)?.length, 5, text);

    await client.command("ip", ["addr", "add", "10.9.0.2/32", "dev", "tun0"]);
    const open = [
      "import socket, time",
      "sockets, refused = [], 0",
      "for _ in range(300):",
      "  try: sockets.append(socket.create_connection(('10.9.0.53', 53)))",
      "  except ConnectionError: refused += 1",
      "print('open', flush=True)",
      "time.sleep(60)",
    ].join("\n");
    const child = client.spawn("python3", ["-c", open]);
    await using flood = new Running(child, child.stderr, child.stdout);
    await flood.said(/open/);
    const other = await dig(client, RESOLVERS[0]!, "-b", "10.9.0.2", "www.example", "+tcp");
    assert.deepEqual(other.answers.map((line) => line.split(" ").at(-1)), ["192.0.2.80"], other.text);
    await assertFaultless(capture, client);
    assert.equal((await script.stop()).code, 0);
  },
);

systemTest(
  "dns_sinkhole.ts says SERVFAIL when its upstream is gone, and asks again when it is back",
  NEEDS,
  async () => {
    await using client = await openNamespace();
    await using server = await openNamespace();
    await link(
      { namespace: client, name: "veth", addresses: ["192.0.2.1/24"] },
      { namespace: server, name: "veth", addresses: [`${SERVER}/24`] },
    );
    await using _script = await start(client, "dns_sinkhole.ts", { UPSTREAM: SERVER });
    assert.equal((await dig(client, RESOLVERS[0]!, "www.example")).status, "SERVFAIL");
    await using _upstream = await nameServer(server, SERVER, ...RECORDS);
    // A failure is remembered for a second.
    let answer: Dug;
    do answer = await dig(client, RESOLVERS[0]!, "www.example"); while (answer.status === "SERVFAIL");
    assert.deepEqual(answer.answers, ["www.example. 300 IN A 192.0.2.80"]);
  },
);

systemTest("fake_ip.ts gives names addresses, which ping reaches, and tells the names", NEEDS, async () => {
  await using client = await openNamespace();
  await using script = await start(client, "fake_ip.ts");
  await using capture = await Capture.open(client, "tun0", "udp or icmp or icmp6", 65_535);
  const a = await dig(client, RESOLVERS[0]!, "www.example.com");
  assert.deepEqual(a.answers, ["www.example.com. 5 IN A 198.18.0.1"]);
  const aaaa = await dig(client, RESOLVERS[1]!, "WWW.Example.com", "AAAA");
  assert.deepEqual(aaaa.answers, ["WWW.Example.com. 5 IN AAAA fd09:fa4e::1"]);
  const other = await dig(client, RESOLVERS[0]!, "mail.example.com");
  assert.deepEqual(other.answers, ["mail.example.com. 5 IN A 198.18.0.2"]);
  const https = await dig(client, RESOLVERS[0]!, "www.example.com", "HTTPS");
  assert.deepEqual([https.status, https.answers], ["NOERROR", []]);
  const reverse = await dig(client, RESOLVERS[0]!, "-x", "198.18.0.2");
  assert.deepEqual(reverse.answers, ["2.0.18.198.in-addr.arpa. 5 IN PTR mail.example.com."]);
  for (const address of ["198.18.0.2", "fd09:fa4e::1"]) {
    const { answered } = await ping(client, "-c", "2", "-i", "0.1", "-w", "10", address);
    assert.deepEqual(answered, [1, 2]);
  }
  await script.said(/^to mail\.example\.com: .*10\.9\.0\.1.*198\.18\.0\.2/m);
  await script.said(/^to www\.example\.com: .*fd09:fa4e::1/m);
  for (let i = 0; i < 4; i++) await dig(client, RESOLVERS[0]!, `n${i}.example`);
  await assertFaultless(capture, client);
  assert.equal((await script.stop()).code, 0);
});
