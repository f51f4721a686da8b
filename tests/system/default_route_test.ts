/**
 * A tunnel as the default route: its own packets stay out of it, the system's default route stays, and the close undoes
 * everything.
 *
 *     client ── eth0 ── router ── server (203.0.113.5 and .6)
 *        └──── eth1 ──────┘
 */

import assert from "node:assert/strict";
import { nameServer } from "../kit/servers.ts";
import { link, type Namespace, openNamespace, systemTest } from "../kit/system.ts";
import { Running } from "../kit/traffic.ts";

const NEEDS = { programs: ["ip", "ping", "sysctl"] };
const NEEDS_NAMES = { programs: ["ip", "ping", "sysctl", "dnsmasq"] };
const SETTINGS = new URL("../../deno.json", import.meta.url).pathname;
const SCRIPTS = new URL("../../scripts/", import.meta.url).pathname;
const NAME_SERVER = "203.0.113.53";
/** Poll interval and limit of a wait (milliseconds). */
const INTERVAL = 100;
const LIMIT = 20_000;

async function until(holds: () => Promise<boolean>, what: string): Promise<void> {
  const end = performance.now() + LIMIT;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`Not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, INTERVAL));
  }
}

/** A client behind a router, and a server. */
class Place implements AsyncDisposable {
  readonly client: Namespace;
  readonly router: Namespace;
  readonly server: Namespace;
  readonly #all: AsyncDisposableStack;

  private constructor(client: Namespace, router: Namespace, server: Namespace, all: AsyncDisposableStack) {
    this.client = client;
    this.router = router;
    this.server = server;
    this.#all = all;
  }

  static async open(): Promise<Place> {
    await using undo = new AsyncDisposableStack();
    const [client, router, server] = [
      undo.use(await openNamespace()),
      undo.use(await openNamespace()),
      undo.use(await openNamespace()),
    ];
    await link(
      { namespace: client, name: "eth0", addresses: ["192.0.2.10/24", "2001:db8:1::10/64"] },
      { namespace: router, name: "c0", addresses: ["192.0.2.1/24", "2001:db8:1::1/64"] },
    );
    await link(
      { namespace: client, name: "eth1", addresses: ["198.51.100.10/24"] },
      { namespace: router, name: "c1", addresses: ["198.51.100.1/24"] },
    );
    await link(
      { namespace: router, name: "s0", addresses: ["203.0.113.1/24", "2001:db8:2::1/64"] },
      {
        namespace: server,
        name: "eth0",
        addresses: ["203.0.113.5/24", "203.0.113.6/24", `${NAME_SERVER}/24`, "2001:db8:2::5/64"],
      },
    );
    await router.command("sysctl", ["-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]);
    await client.command("ip", ["route", "add", "default", "via", "192.0.2.1"]);
    await client.command("ip", ["-6", "route", "add", "default", "via", "2001:db8:1::1"]);
    await server.command("ip", ["route", "add", "default", "via", "203.0.113.1"]);
    await server.command("ip", ["-6", "route", "add", "default", "via", "2001:db8:2::1"]);
    const settings = `/etc/netns/${client.name}`;
    await Deno.mkdir(settings, { recursive: true });
    undo.defer(async () => {
      await Deno.remove(settings, { recursive: true });
      // Another test may have its own there.
      await Deno.remove("/etc/netns").catch(() => {});
    });
    await Deno.writeTextFile(
      `${settings}/resolv.conf`,
      `nameserver ${NAME_SERVER}\noptions timeout:1 attempts:2\n`,
    );
    return new Place(client, router, server, undo.move());
  }

  /** Routes and rules of the kernel. */
  async state(): Promise<unknown[]> {
    const found = await Promise.all(
      [["-4", "route"], ["-6", "route"], ["rule"], ["-6", "rule"]].map(async (words) => {
        const lines = (await this.client.command("ip", words)).stdout.split("\n");
        return lines.map((line) => line.trim()).sort();
      }),
    );
    return found;
  }

  /** Link that packets to an address leave by, or `unreachable`. */
  async wayTo(address: string): Promise<string> {
    const { stdout } = await this.client.command("ip", ["route", "get", address], { check: false });
    return /^unreachable|dev (\S+)/.exec(stdout)?.at(1) ?? "unreachable";
  }

  /** Waits until a ping through the tunnel is answered. */
  async passes(): Promise<void> {
    const ping = ["-c", "1", "-W", "1", "10.9.0.1"];
    await until(
      async () => (await this.client.command("ping", ping, { check: false })).code === 0,
      "a ping is answered",
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#all.disposeAsync();
  }
}

function run(namespace: Namespace, script: string, ...flags: string[]): Running {
  const permissions = ["--allow-ffi", "--allow-net", "--allow-sys"];
  const child = namespace.spawn(
    Deno.execPath(),
    ["run", "--quiet", "--no-check", ...permissions, "--config", SETTINGS, script, "--name", "t0", ...flags],
    { stdout: "null" },
  );
  return new Running(child, child.stderr);
}

async function serve(place: Place, script: string, far: string): Promise<Running> {
  const server = run(place.server, `${SCRIPTS}${script}`, "--far", far);
  await server.said(/is open/);
  return server;
}

async function connect(place: Place, script: string, far: string, ...flags: string[]): Promise<Running> {
  const client = run(
    place.client,
    `${SCRIPTS}${script}`,
    "--address",
    "10.9.0.2/24",
    "--route",
    "default",
    "--far",
    far,
    ...flags,
  );
  await client.said(/is open/);
  return client;
}

for (const rpFilter of [0, 1, 2]) {
  systemTest(
    `--route default beside a default route of metric 0, with rp_filter=${rpFilter}`,
    NEEDS,
    async () => {
      await using place = await Place.open();
      const names = ["all", "default", "eth0", "eth1"];
      const settings = names.map((name) => `net.ipv4.conf.${name}.rp_filter=${rpFilter}`);
      await place.client.command("sysctl", ["-qw", ...settings]);
      const before = await place.state();
      await using _udp = await serve(place, "plain_udp.ts", "udp://[::]:4500?listen");
      for (
        const far of [
          "udp://203.0.113.5:4500",
          "udp://203.0.113.5:4500?interface=eth0",
          "udp://[2001:db8:2::5]:4500",
        ]
      ) {
        await using client = await connect(place, "plain_udp.ts", far);
        await place.passes();
        assert.equal(await place.wayTo("8.8.8.8"), "t0", far);
        assert.equal(await place.wayTo("2606:4700::1"), "unreachable", far);
        const outer = /\[?([\da-f.:]*[\da-f])\]?:4500/.exec(far)![1]!;
        assert.equal(await place.wayTo(outer), "eth0", far);
        const { code, heard } = await client.stop("SIGTERM");
        assert.equal(code, 0, heard);
        assert.deepEqual(await place.state(), before, far);
      }
    },
  );
}

systemTest(
  "--route default covers IPv6 when the device has an IPv6 address; 0.0.0.0/0 covers only IPv4",
  NEEDS,
  async () => {
    await using place = await Place.open();
    await using _server = await serve(place, "plain_udp.ts", "udp://203.0.113.5:4500?listen");
    const far = "udp://203.0.113.5:4500";
    {
      await using _client = await connect(place, "plain_udp.ts", far, "--address", "fd09::2/64");
      assert.equal(await place.wayTo("8.8.8.8"), "t0");
      assert.equal(await place.wayTo("2606:4700::1"), "t0");
      assert.equal(await place.wayTo("203.0.113.5"), "eth0");
      await _client.stop("SIGTERM");
    }
    const four = run(
      place.client,
      `${SCRIPTS}plain_udp.ts`,
      ...["--address", "10.9.0.2/24", "--route", "0.0.0.0/0", "--far", far],
    );
    await using _four = four;
    await four.said(/is open/);
    assert.equal(await place.wayTo("8.8.8.8"), "t0");
    assert.equal(await place.wayTo("2606:4700::1"), "eth0");
    await place.passes();
  },
);

systemTest(
  "--route default warns when IPv6 is disabled, and the error for an IPv6 address names the remedy",
  NEEDS,
  async () => {
    await using place = await Place.open();
    const off = ["all", "default", "lo"].map((name) => `net.ipv6.conf.${name}.disable_ipv6=1`);
    await place.client.command("sysctl", ["-qw", ...off]);
    await using _server = await serve(place, "plain_udp.ts", "udp://203.0.113.5:4500?listen");
    await using client = await connect(place, "plain_udp.ts", "udp://203.0.113.5:4500");
    await place.passes();
    assert.match(client.heard, /^warren: IPv6 is disabled: the default route through "t0" is IPv4 only$/m);
    await client.stop("SIGTERM");
    await using dual = run(place.client, `${SCRIPTS}icmp_echo.ts`);
    await assert.rejects(
      dual.said(/is open/),
      /Cannot add the address fd\S+ to t0: IPv6 is disabled here: enable it with `sysctl net\.ipv6/,
    );
  },
);

systemTest(
  "The far end is also bypassed when a narrow route, a route in a table or an address covers it",
  NEEDS,
  async () => {
    await using place = await Place.open();
    const before = await place.state();
    await using _server = await serve(place, "plain_udp.ts", "udp://203.0.113.5:4500?listen");
    for (const route of ["203.0.113.0/24", "203.0.113.0/24 metric 7", "0.0.0.0/0 table 77"]) {
      const flags = ["--address", "10.9.0.2/24", "--route", route, "--far", "udp://203.0.113.5:4500"];
      await using client = run(place.client, `${SCRIPTS}plain_udp.ts`, ...flags);
      await client.said(/is open/);
      if (route.includes("table")) {
        await place.client.command("ip", ["rule", "add", "priority", "100", "table", "77"]);
      }
      await place.passes();
      assert.equal(await place.wayTo("203.0.113.5"), "eth0", route);
      assert.equal(await place.wayTo("203.0.113.99"), "t0", route);
      await client.stop("SIGTERM");
      await place.client.command("ip", ["rule", "del", "priority", "100"], { check: false });
      assert.deepEqual(await place.state(), before, route);
    }
  },
);

systemTest(
  "The path to the far end follows the system's routes, and is unreachable without one",
  NEEDS,
  async () => {
    await using place = await Place.open();
    await using _server = await serve(place, "plain_udp.ts", "udp://203.0.113.5:4500?listen");
    await using client = await connect(place, "plain_udp.ts", "udp://203.0.113.5:4500");
    await place.passes();
    const gone = async (way: string) => await place.wayTo("203.0.113.5") === way;
    await place.client.command("ip", ["link", "set", "eth0", "down"]);
    await until(() => gone("unreachable"), "the far end is unreachable");
    await place.client.command("ip", ["route", "add", "default", "via", "198.51.100.1", "dev", "eth1"]);
    await until(() => gone("eth1"), "the far end is reached by eth1");
    await place.passes();
    await place.client.command("ip", ["route", "del", "default"]);
    await place.client.command("ip", ["link", "set", "eth0", "up"]);
    await place.client.command("ip", ["route", "add", "default", "via", "192.0.2.1"]);
    await until(() => gone("eth0"), "the far end is reached by eth0");
    await place.passes();
    const { code, heard } = await client.stop("SIGTERM");
    assert.equal(code, 0, heard);
    assert.equal((await place.client.command("ip", ["route"])).stdout.includes("203.0.113.5"), false);
  },
);

for (
  const [script, port] of [["plain_udp.ts", "udp://203.0.113.%:4500"], [
    "websocket.ts",
    "ws://203.0.113.%:8080/",
  ]]
) {
  systemTest(
    `${script} with --route default finds its far end by name when that moves`,
    NEEDS_NAMES,
    async () => {
      await using place = await Place.open();
      const before = await place.state();
      const listen = (last: string) => serve(place, script!, `${port!.replace("%", last)}?listen`);
      const dns = (last: string) =>
        nameServer(place.server, NAME_SERVER, `--address=/vpn.example/203.0.113.${last}`, "--local-ttl=0");
      let names = await dns("5");
      const first = await listen("5");
      const far = port!.replace("203.0.113.%", "vpn.example");
      await using client = await connect(place, script!, far);
      await place.passes();
      assert.equal(await place.wayTo("203.0.113.5"), "eth0");
      await names[Symbol.asyncDispose]();
      await first.stop("SIGKILL");
      names = await dns("6");
      await using _names = names;
      await using _second = await listen("6");
      await place.passes();
      assert.equal(await place.wayTo("203.0.113.6"), "eth0");
      assert.equal(await place.wayTo(NAME_SERVER), "t0");
      const { code, heard } = await client.stop("SIGTERM");
      assert.equal(code, 0, heard);
      assert.deepEqual(await place.state(), before);
    },
  );
}

systemTest("A listening far end answers a peer that its tunnel's routes cover", NEEDS, async () => {
  await using place = await Place.open();
  await using server = run(
    place.server,
    `${SCRIPTS}plain_udp.ts`,
    ...["--far", "udp://0.0.0.0:4500?listen", "--address", "10.9.0.1/24", "--route", "default"],
  );
  await server.said(/is open/);
  await using client = run(
    place.client,
    `${SCRIPTS}plain_udp.ts`,
    ...["--address", "10.9.0.2/24", "--far", "udp://203.0.113.5:4500"],
  );
  await client.said(/is open/);
  await place.passes();
});

systemTest(
  "Two tunnels of a script: the default route of one bypasses the far ends of both",
  NEEDS,
  async () => {
    await using place = await Place.open();
    const before = await place.state();
    await using _first = await serve(place, "plain_udp.ts", "udp://203.0.113.5:4500?listen");
    const path = await Deno.makeTempFile({ suffix: ".ts" });
    try {
      await Deno.writeTextFile(
        path,
        `import { script } from "@warren/tunnel";
      export default script(import.meta, { tunnels: {
        all: { name: "way", address: "10.9.0.2/24", route: "default", far: "udp://203.0.113.5:4500" },
        lab: { name: "lab", address: "10.8.0.2/24", far: "udp://203.0.113.6:4500" },
      } }, async ({ all, lab }) => void await Promise.all([all.run(), lab.run()]));`,
      );
      const args = ["run", "--quiet", "--no-check", "--allow-ffi", "--config", SETTINGS, path];
      const child = place.client.spawn(Deno.execPath(), args, { stdout: "null" });
      await using client = new Running(child, child.stderr);
      await client.said(/lab is open/);
      await place.passes();
      assert.equal(await place.wayTo("203.0.113.5"), "eth0");
      assert.equal(await place.wayTo("203.0.113.6"), "eth0");
      assert.equal(await place.wayTo("8.8.8.8"), "way");
      const { code, heard } = await client.stop("SIGTERM");
      assert.equal(code, 0, heard);
      assert.deepEqual(await place.state(), before);
    } finally {
      await Deno.remove(path);
    }
  },
);

systemTest(
  "The next start undoes what a killed tunnel with --route default left behind",
  NEEDS,
  async () => {
    await using place = await Place.open();
    const before = await place.state();
    await using _server = await serve(place, "plain_udp.ts", "udp://203.0.113.5:4500?listen");
    const killed = await connect(place, "plain_udp.ts", "udp://203.0.113.5:4500");
    await killed.stop("SIGKILL");
    assert.notDeepEqual(await place.state(), before);
    await using next = run(place.client, `${SCRIPTS}icmp_echo.ts`);
    await next.said(/is open/);
    await next.stop("SIGTERM");
    assert.deepEqual(await place.state(), before);
  },
);
