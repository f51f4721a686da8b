/** Every file of `scripts/`: its form, its types, and that it runs on devices in memory. */

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { mock } from "node:test";
import { MemoryDevice } from "../../driver/memory.ts";
import { openTunnel, type Tunnel, type TunnelOptions } from "../../runtime/mod.ts";
import type { ScriptFlags } from "../../runtime/script/script_flags.ts";
import {
  declaredTunnels,
  isScript,
  type TunnelScript,
  type TunnelsScript,
} from "../../runtime/script/script.ts";
import { until } from "../kit/host.ts";

const FOLDER = new URL("../../scripts/", import.meta.url);
const MAX_LINES = 40;
/** A whole VPN protocol, which is longer than a script. */
const LONG_SCRIPTS: Record<string, number> = { "own_vpn.ts": 85 };
/** An ICMP echo request from 10.9.0.2 to 10.9.0.77, with right sums. */
const ECHO_REQUEST = Uint8Array.fromHex("4500001c00010000400166800a0900020a09004d0800f7fd00010001");

const names = Array.from(Deno.readDirSync(FOLDER), ({ name }) => name).filter((name) => name.endsWith(".ts"))
  .sort();

/** A script's tunnel on a device in memory, and a tunnel that is the system on its other side. */
interface Rig {
  readonly tunnel: Tunnel;
  readonly system: Tunnel;
  readonly elsewhere: MemoryDevice | undefined;
}

/** No signals and no thread: they are not the scripts'. */
const QUIET = { signals: false, watchdog: 0 };

async function openRig(options: TunnelOptions, hasFarEnd: boolean): Promise<Rig> {
  const [device, outside] = MemoryDevice.pair({ name: "script" });
  const [far, elsewhere] = hasFarEnd ? MemoryDevice.pair({ name: "road" }) : [];
  const { far: _, ...rest } = options;
  const tunnel = await openTunnel({ ...rest, ...QUIET, device, ...(far === undefined ? {} : { far }) });
  return { tunnel, system: await openTunnel({ device: outside, ...QUIET }), elsewhere };
}

function lost({ dropped }: Tunnel["stats"]): number {
  return Object.values(dropped).reduce((sum, count) => sum + count, 0);
}

/** Values of the flags that a script cannot run without. */
function requiredFlags(flags: ScriptFlags = {}): Record<string, string> {
  const required = Object.entries(flags).filter(([, flag]) => flag.type === "string" && flag.required);
  return Object.fromEntries(required.map(([name]) => [name, "text"]));
}

async function load(name: string): Promise<TunnelScript | TunnelsScript> {
  const { default: made } = await import(new URL(name, FOLDER).href);
  assert.ok(isScript(made), `the default export of ${name} is no script`);
  return made;
}

Deno.test("scripts/ has scripts", () => assert.ok(names.includes("icmp_echo.ts")));

Deno.test("scripts/ type-checks", async () => {
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["check", "--quiet", ...names.map((name) => fileURLToPath(new URL(name, FOLDER)))],
    cwd: FOLDER,
  }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
});

for (const name of names) {
  Deno.test(`scripts/${name} is short, can be executed, and says what to try`, async () => {
    const text = await Deno.readTextFile(new URL(name, FOLDER));
    const [shebang, doc] = text.split("\n");
    assert.match(shebang!, /^#!\/usr\/bin\/env -S deno run (--allow-\w+(=\S+)? ?)+$/);
    assert.match(doc!, /^\/\*\*(?: |$)/);
    assert.match(text.slice(0, text.indexOf("*/")), /\bTry: /);
    const max = LONG_SCRIPTS[name] ?? MAX_LINES;
    assert.ok(text.trimEnd().split("\n").length <= max, `it is longer than ${max} lines`);
  });

  Deno.test(`scripts/${name} is a script whose main runs on a device in memory until the tunnel closes`, async () => {
    const made = await load(name);
    const { options, main } = made;
    const hasFarEnd = /\bfar\b/.test(await Deno.readTextFile(new URL(name, FOLDER)));
    const declared = declaredTunnels(made);
    const rigs = new Map<string, Rig>();
    for (const [key, one] of Object.entries(declared)) rigs.set(key, await openRig(one, hasFarEnd));
    const printed = mock.method(console, "log", () => {});
    // For what it writes.
    const folder = await Deno.makeTempDir({ prefix: "warren-script-" });
    const before = Deno.cwd();
    Deno.chdir(folder);
    try {
      const tunnels = Object.fromEntries(Array.from(rigs, ([key, { tunnel }]) => [key, tunnel]));
      const running = "tunnels" in options
        ? (main as TunnelsScript["main"])(tunnels)
        : (main as TunnelScript["main"])(tunnels[""]!, { flags: requiredFlags(options.flags) });
      for (const { tunnel, system } of rigs.values()) {
        // It fails when the script's device is pulled away before.
        system.run().catch(() => {});
        assert.equal(system.send(ECHO_REQUEST), true);
        await until(() => tunnel.stats.outbound.packetsIn === 1, `${name} has its packet`);
      }
      for (const { tunnel } of rigs.values()) tunnel.close();
      await running;
    } finally {
      printed.mock.restore();
      Deno.chdir(before);
      await Deno.remove(folder, { recursive: true });
    }
    for (const { tunnel, system, elsewhere } of rigs.values()) {
      const { outbound, inbound, created, queued } = tunnel.stats;
      assert.equal(
        outbound.packetsIn + inbound.packetsIn + created,
        outbound.packetsOut + inbound.packetsOut + lost(tunnel.stats) + queued,
      );
      system.close();
      await system.closed.catch(() => {});
      elsewhere?.close();
    }
  });
}
