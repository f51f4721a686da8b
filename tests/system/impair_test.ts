/** Real programs through impair.ts: the delay, jitter and loss that it says, beside those of Linux' netem. */

import assert from "node:assert/strict";
import { delayTable } from "../../lib/stage/impair/_distribution.ts";
import { command, type Namespace, systemTest } from "../kit/system.ts";
import {
  CROSSING,
  Crossing,
  firstAnswer,
  parsePings,
  ping,
  type Pings,
  startScript,
} from "../kit/traffic.ts";
import { USER_MODE_LINUX, userModeLinux } from "../kit/user_mode_linux.ts";

const NEEDS = { programs: ["ip", "ping", "sysctl"] };

// Specification: linux/pkt_sched.h
const NETEM_DIST_SCALE = 8192;

// What impair.ts says.
const ROAD = { delay: 50, jitter: 4, loss: 0.02 };
const COUNT = 1000;
/** Netem's kernel starts, and a thousand pings pass it, by then (milliseconds). */
const LIMIT = 120_000;

/** What pings see of a road. */
interface Seen {
  readonly delay: number;
  readonly jitter: number;
  readonly loss: number;
}

function seen({ sent, answered, times }: Pings): Seen {
  const delay = times.reduce((sum, time) => sum + time, 0) / times.length;
  const variance = times.reduce((sum, time) => sum + (time - delay) ** 2, 0) / times.length;
  return { delay, jitter: Math.sqrt(variance), loss: 1 - answered.length / sent };
}

function pings(namespace: Namespace, destination: string): Promise<Pings> {
  return ping(namespace, "-c", String(COUNT), "-i", "0.005", destination);
}

function assertNear(one: Seen, other: Seen, delay: number): void {
  const said = JSON.stringify([one, other]);
  assert.ok(Math.abs(one.delay - other.delay) < delay, `delay: ${said}`);
  assert.ok(Math.abs(one.jitter - other.jitter) < 0.2 * ROAD.jitter, `jitter: ${said}`);
  const deviation = Math.sqrt(ROAD.loss * (1 - ROAD.loss) / COUNT);
  assert.ok(Math.abs(one.loss - other.loss) < 5 * deviation, `loss: ${said}`);
}

systemTest("ping sees the delay, jitter and loss of impair.ts", NEEDS, async () => {
  await using crossing = await Crossing.open();
  const { left, middle } = crossing;
  await using script = await startScript(middle, "impair.ts", "--far", "tun:right");
  await crossing.route(["-4"]);
  await firstAnswer(left, CROSSING.right.ipv4);
  const found = await pings(left, CROSSING.right.ipv4);
  // Each way ends at the loop's first breath after its time: half a millisecond later, more on a busy machine.
  assertNear(seen(found), { ...ROAD, delay: ROAD.delay + 1.5 }, 2);
  assert.ok(Math.min(...found.times) > ROAD.delay - 4.5 * ROAD.jitter);
  assert.ok(found.answered.some((number, i) => number < found.answered[i - 1]!), "jitter reorders packets");
  assert.equal((await script.stop()).code, 0);
});

/** A table of iproute2's: what it multiplies the jitter by, in rising order; `undefined`: it is not here. */
async function netemTable(distribution: string): Promise<number[] | undefined> {
  const { stdout } = await command("find", [
    "/usr/lib",
    "/usr/share",
    "-maxdepth",
    "3",
    "-name",
    `${distribution}.dist`,
  ], {
    check: false,
  });
  const [path] = stdout.split("\n");
  if (path === "") return undefined;
  const text = await Deno.readTextFile(path!);
  const numbers = text.split("\n").filter((line) => !line.startsWith("#")).join(" ").trim().split(/\s+/);
  return numbers.map((number) => Number(number) / NETEM_DIST_SCALE).sort((a, b) => a - b);
}

systemTest("Delays are spread as by the tables that iproute2 gives netem", {
  root: false,
  programs: ["find", "tc"],
}, async () => {
  for (const distribution of ["normal", "pareto", "paretonormal"] as const) {
    const theirs = await netemTable(distribution);
    if (theirs === undefined) {
      console.log(`skipped: no comparison of ${distribution}: tc has no such table here`);
      continue;
    }
    const ours = delayTable(distribution);
    assert.equal(ours.length, theirs.length);
    // Theirs are rounded, and normal's were searched in steps.
    const differences = theirs.map((value, i) => Math.abs(value - ours[i]!)).sort((a, b) => a - b);
    assert.ok(
      differences[Math.floor(differences.length * 0.99)]! < 0.03,
      `${distribution}: ${differences.at(-41)}`,
    );
    const mean = differences.reduce((sum, value) => sum + value, 0) / differences.length;
    assert.ok(mean < 0.003, `${distribution}: ${mean}`);
  }
});

/** A thousand pings over what impair.ts says, made by netem: in a kernel of their own, for many have no netem. */
async function pingsThroughNetem(): Promise<Pings> {
  const written = await userModeLinux(
    ["veth", "sch_netem"],
    `
      ip netns add right
      ip link add left type veth peer name right netns right
      ip address add 192.0.2.1/24 dev left
      ip -n right address add 192.0.2.2/24 dev right
      ip link set left up
      ip -n right link set right up
      ping -c 1 192.0.2.2 > /dev/null
      tc qdisc add dev left root netem delay 40ms 4ms distribution normal loss 2%
      tc -n right qdisc add dev right root netem delay 10ms
      ping -n -c ${COUNT} -i 0.005 192.0.2.2`,
    LIMIT,
  );
  return parsePings(written)!;
}

systemTest("ping sees through impair.ts what it sees through tc-netem(8) with the same words", {
  programs: [...NEEDS.programs, ...USER_MODE_LINUX, "tc"],
}, async () => {
  const theirs = seen(await pingsThroughNetem());
  await using crossing = await Crossing.open();
  await using _script = await startScript(crossing.middle, "impair.ts", "--far", "tun:right");
  await crossing.route(["-4"]);
  await firstAnswer(crossing.left, CROSSING.right.ipv4);
  const ours = seen(await pings(crossing.left, CROSSING.right.ipv4));
  assertNear(ours, theirs, 3);
  console.log(`impair.ts: ${JSON.stringify(ours)}; netem: ${JSON.stringify(theirs)}`);
});
