/** Tunnels that are closed and opened anew beside others that go on, in a process and a namespace of their own. */

import { setImmediate } from "node:timers";
import { Icmpv4 } from "../../lib/wire/icmpv4.ts";
import type { Packet } from "../../lib/core/mod.ts";
import { openTunnel, type Tunnel, Verdict } from "../../runtime/mod.ts";
import { command } from "../kit/system.ts";

// Specification: RFC 792, "Echo or Echo Reply Message"
const ECHO = 8;
const ECHO_REPLY = 0;
/** Turns after which the loop has nothing left and waits beside its thread. */
const TURNS = 50;

function answer(packet: Packet): Verdict {
  const echo = Icmpv4.of(packet);
  if (echo?.type !== ECHO) return Verdict.Drop;
  echo.type = ECHO_REPLY;
  echo.ip.swap();
  return Verdict.Reply;
}

/** A tunnel whose whole network answers pings: `10.NUMBER.0.0/24`. */
async function open(name: string, number: number): Promise<{ tunnel: Tunnel; run: Promise<void> }> {
  const options = { name, address: `10.${number}.0.1/24`, signals: false, watchdog: 0 };
  const tunnel = await openTunnel(options);
  return { tunnel, run: tunnel.run(answer) };
}

async function settle(): Promise<void> {
  for (let i = 0; i < TURNS; i++) await new Promise((resolve) => setImmediate(resolve));
}

function isThere(name: string): boolean {
  return Deno.readTextFileSync("/proc/net/dev").includes(`${name}:`);
}

async function pings(number: number): Promise<boolean> {
  const args = ["-n", "-c", "3", "-i", "0.01", "-W", "5", `10.${number}.0.9`];
  const { stdout } = await command("ping", args, { check: false });
  return / 3 received, 0% packet loss/.test(stdout);
}

/** Closes a tunnel and opens its name at once, again and again; whether its device was there before, and after. */
async function reopen(): Promise<{ before: boolean; after: boolean }[]> {
  const rounds: { before: boolean; after: boolean }[] = [];
  for (let round = 0; round < 10; round++) {
    const { tunnel, run } = await open("again", 77);
    await settle();
    const before = isThere("again");
    tunnel.close();
    await tunnel.closed;
    rounds.push({ before, after: isThere("again") });
    await run;
  }
  return rounds;
}

const SCENARIOS: Record<string, () => Promise<unknown>> = {
  /** One of two tunnels is closed, and its name opened at once. */
  async reopen() {
    const other = await open("other", 76);
    const rounds = await reopen();
    const again = await open("again", 77);
    const answered = [await pings(76), await pings(77)];
    again.tunnel.close();
    other.tunnel.close();
    await Promise.all([again.run, other.run]);
    return { rounds, answered };
  },
  /** The same with one tunnel alone. */
  async alone() {
    return { rounds: await reopen() };
  },
  /** Opens a tunnel that gets the number of a descriptor that the loop has waited for. */
  async reuse() {
    const stays = await open("stays", 76);
    const first = await open("first", 77);
    await settle();
    const number = first.tunnel.device.waits[0]!.waitable;
    first.tunnel.close();
    await first.tunnel.closed;
    const second = await open("second", 78);
    const reused = second.tunnel.device.waits[0]!.waitable === number;
    await settle();
    const answered = [await pings(78), await pings(76), await pings(78)];
    stays.tunnel.close();
    second.tunnel.close();
    await Promise.all([stays.run, first.run, second.run]);
    return { reused, answered, there: ["stays", "first", "second"].filter(isThere) };
  },
};

console.log(JSON.stringify(await SCENARIOS[Deno.args[0]!]!()));
