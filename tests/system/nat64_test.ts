/** scripts/nat64.ts between a host with IPv6 alone and a web server with IPv4 alone, and what their programs make of it. */

import { deepEqual, equal } from "node:assert/strict";
import { traceroute, webServer } from "../kit/servers.ts";
import { link, type Namespace, openNamespace, systemTest } from "../kit/system.ts";
import { Capture, endCaptures, firstAnswer, judge, ping, startScript } from "../kit/traffic.ts";

const NEEDS = { programs: ["ip", "ping", "tcpdump", "tshark", "sysctl", "nginx", "curl", "traceroute"] };
/** 192.0.2.1, by the well-known prefix. */
const SERVER = "64:ff9b::c000:201";
const PAGE = 8 * 1024 * 1024;
const SIX = "ip6 net 64:ff9b::/96";
/** What the kernel sends into a device with offload has unfinished sums; what comes out of it here has not. */
const FOUR = "src host 198.51.100.2 or icmp";

/** The client, the script's namespace and the server, and what runs in them. */
class Lab implements AsyncDisposable {
  readonly client: Namespace;
  readonly middle: Namespace;
  readonly page: string;
  readonly #stack: AsyncDisposableStack;

  private constructor(client: Namespace, middle: Namespace, page: string, stack: AsyncDisposableStack) {
    this.client = client;
    this.middle = middle;
    this.page = page;
    this.#stack = stack;
  }

  static async open(...flags: string[]): Promise<Lab> {
    await using undo = new AsyncDisposableStack();
    const folder = await Deno.makeTempDir({ prefix: "warren-nat64-" });
    undo.defer(() => Deno.remove(folder, { recursive: true }));
    const [client, middle, server] = [
      undo.use(await openNamespace()),
      undo.use(await openNamespace()),
      undo.use(await openNamespace()),
    ];
    const settings = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];
    await middle.command("sysctl", ["-qw", ...settings, "net.ipv4.conf.all.rp_filter=0"]);
    await link(
      { namespace: client, name: "veth", addresses: ["fd65::5/64"] },
      { namespace: middle, name: "inside", addresses: ["fd65::1/64"] },
    );
    await link(
      { namespace: middle, name: "outside", addresses: ["192.0.2.254/24"] },
      { namespace: server, name: "veth", addresses: ["192.0.2.1/24"] },
    );
    await client.command("ip", ["-6", "route", "add", "default", "via", "fd65::1"]);
    await server.command("ip", ["route", "add", "198.51.100.0/24", "via", "192.0.2.254"]);
    await server.command("sysctl", ["-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
    undo.use(await startScript(middle, "nat64.ts", ...flags));
    const page = `${folder}/page`;
    await Deno.writeFile(page, Uint8Array.from({ length: PAGE }, (_, i) => i * 7 + (i >> 8)));
    await Deno.chmod(folder, 0o755);
    undo.use(await webServer(server, "listen 192.0.2.1:80;", `root "${folder}";`));
    await firstAnswer(client, SERVER);
    return new Lab(client, middle, page, undo.move());
  }

  /** Fetches the page, and says whether it is the page. */
  async fetches(): Promise<void> {
    const url = `http://[${SERVER}]/page`;
    const copy = `${this.page}.copy`;
    await this.client.command("curl", ["-6", "-g", "-sS", "-m", "30", "-o", copy, url]);
    await this.client.command("cmp", [this.page, copy]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

systemTest(
  "curl with IPv6 alone reads a page of 8 MiB from an IPv4 server, with offload",
  NEEDS,
  async () => {
    await using lab = await Lab.open();
    await lab.fetches();
  },
);

systemTest("Every packet that nat64.ts translates is right to tshark", NEEDS, async () => {
  await using lab = await Lab.open("--no-offload");
  const { client, middle } = lab;
  await using six = await Capture.open(middle, "six", SIX);
  await using four = await Capture.open(middle, "four", FOUR);
  await lab.fetches();
  for (const size of ["0", "56", "1200", "1440"]) {
    const { answered, odd } = await ping(client, "-6", "-n", "-c", "5", "-i", "0.01", "-s", size, SERVER);
    deepEqual({ answered, odd }, { answered: [1, 2, 3, 4, 5], odd: [] }, size);
  }
  const hops = await traceroute(client, SERVER);
  equal(hops[1], "fd64::64");
  equal(hops.at(-1), SERVER);
  const refused = await client.command("curl", ["-6", "-g", "-sS", "-m", "9", `http://[${SERVER}]:81/`], {
    check: false,
  });
  equal(refused.code, 7);
  await endCaptures(client, SERVER, [six, four]);
  for (const capture of [six, four]) {
    const { packets, faults } = await judge(capture.file);
    deepEqual({ packets, faults }, { packets: capture.packets.length, faults: [] }, capture.device);
  }
});
