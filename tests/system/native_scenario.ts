/**
 * A script on the driver of whatever system this is, against the system's own ping and list of interfaces. Prints
 * what came of it as JSON.
 */

import { networkInterfaces } from "node:os";
import { openTunnel } from "../../runtime/mod.ts";
import echo from "../../scripts/icmp_echo.ts";

// Implementation
const ROUNDS = 3;
const PINGS = 5;
/** Behind the route, and not among the addresses of the device's own network. */
const BEHIND = "198.18.7.7";
const TARGETS = ["10.9.0.77", "fd09::77", BEHIND];

/** What came of one opening of a device. */
export interface Round {
  /** Echo requests answered, by whom they went to. */
  answered: Record<string, number>;
  /** Whether the system showed the device's address while it was open, and after. */
  shown: { open: boolean; closed: boolean };
  /** Whether the tunnel's counters add up. */
  balanced: boolean;
}

/** The system's ping: how many were answered. What an answer's line has in it is the same in every language. */
async function ping(address: string): Promise<number> {
  const six = address.includes(":");
  const [program, ...args] = Deno.build.os === "windows"
    ? ["ping", six ? "-6" : "-4", "-n", `${PINGS}`, "-w", "5000", address]
    : Deno.build.os === "linux"
    ? ["ping", "-n", "-c", `${PINGS}`, "-i", "0.1", "-W", "5", address]
    : [six ? "ping6" : "ping", "-n", "-c", `${PINGS}`, "-i", "0.2", address];
  const { stdout } = await new Deno.Command(program!, { args, stdout: "piped", stderr: "inherit" }).output();
  const answer = Deno.build.os === "windows" && six ? /fd09::77.*=/gi : /(ttl|hlim)=/gi;
  return new TextDecoder().decode(stdout).match(answer)?.length ?? 0;
}

function isShown(): boolean {
  return Object.values(networkInterfaces()).flat().some((shown) => shown?.address === "10.9.0.1");
}

async function round(): Promise<Round> {
  const tunnel = await openTunnel({ ...echo.options, route: "198.18.0.0/15", mtu: 1400 });
  const running = echo.main(tunnel);
  const answered: Record<string, number> = {};
  for (const target of TARGETS) answered[target] = await ping(target);
  const open = isShown();
  const { outbound, inbound, created, dropped, queued } = tunnel.stats;
  await tunnel[Symbol.asyncDispose]();
  await running;
  const lost = Object.values(dropped).reduce((sum, count) => sum + count, 0);
  return {
    answered,
    shown: { open, closed: isShown() },
    balanced: outbound.packetsIn + inbound.packetsIn + created ===
      outbound.packetsOut + inbound.packetsOut + queued + lost,
  };
}

if (import.meta.main) {
  const rounds: Round[] = [];
  for (let i = 0; i < ROUNDS; i++) rounds.push(await round());
  console.log(JSON.stringify(rounds));
}
