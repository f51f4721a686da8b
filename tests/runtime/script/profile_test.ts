/** CPU profiles: content, time of writing, and errors. */

import assert from "node:assert/strict";
import type { Profiler } from "node:inspector";
import { join } from "node:path";
import process from "node:process";
import { mock } from "node:test";
import { MemoryDevice } from "../../../driver/memory.ts";
import { openProfile, profileName } from "../../../runtime/script/profile.ts";
import { script } from "../../../runtime/mod.ts";
import { runScript } from "../../../runtime/script/script.ts";
import { until } from "../../kit/host.ts";

// Deno leaves this out of the JavaScript that it makes: the lines below are others there.
interface Burnt {
  readonly rounds: number;
  readonly sum: number;
}

/** Roots that take some 50 ms. Each test has functions of its own: V8 does not see what it optimized before. */
const ROUNDS = 3e7;

function burnTime(): Burnt {
  let sum = 0;
  for (let i = 0; i < ROUNDS; i++) sum += Math.sqrt(i);
  return { rounds: ROUNDS, sum };
}

const ENDING = / s: .*\. Open it in Chrome DevTools: Performance, Load profile$/;

/** A folder for a test, and what is printed to standard error meanwhile. */
class Place implements Disposable {
  readonly folder = Deno.makeTempDirSync({ prefix: "warren-profile-" });
  readonly path = join(this.folder, "my.cpuprofile");
  readonly #error = mock.method(console, "error", () => {});

  get said(): string[] {
    return this.#error.mock.calls.map(({ arguments: [text] }) => String(text));
  }

  get names(): string[] {
    return Array.from(Deno.readDirSync(this.folder), ({ name }) => name);
  }

  read(): Profiler.Profile {
    return JSON.parse(Deno.readTextFileSync(this.path));
  }

  [Symbol.dispose](): void {
    this.#error.mock.restore();
    Deno.removeSync(this.folder, { recursive: true });
  }
}

function find({ nodes }: Profiler.Profile, name: string): Profiler.ProfileNode {
  const [most] = nodes.filter(({ callFrame }) => callFrame.functionName === name)
    .sort((a, b) => b.hitCount! - a.hitCount!);
  assert.ok(most !== undefined, `${name} is not in the profile`);
  return most;
}

Deno.test("profileName() is the script's name and the time, for a file and for a URL", () => {
  const time = Temporal.PlainDateTime.from("2026-11-22T15:30:12.345");
  for (
    const [name, expected] of [
      ["relay.ts", "relay"],
      ["/home/me/my relay.ts", "my_relay"],
      ["https://example.com/a/relay.js?v=2.0#x/y", "relay"],
      ["jsr:@me/relay", "relay"],
      ["grün.v2.ts", "grün.v2"],
    ]
  ) {
    assert.equal(profileName(name!, time), `${expected}-20261122-153012.cpuprofile`);
  }
});

Deno.test("Profile has the functions that ran, at the source's lines, and samples that DevTools can add up", async () => {
  using place = new Place();
  {
    using profile = openProfile(place.path);
    profile.start();
    assert.ok(burnTime().sum > 0);
  }
  const profile = place.read();
  const { nodes, samples, timeDeltas, startTime, endTime } = profile;
  const { callFrame, hitCount, positionTicks } = find(profile, "burnTime");
  assert.equal(callFrame.url, import.meta.url);
  assert.ok(hitCount! > 10, `${hitCount} samples`);

  const lines = (await Deno.readTextFile(new URL(import.meta.url))).split("\n");
  const first = lines.findIndex((line) => line.startsWith("function burnTime("));
  assert.equal(callFrame.lineNumber, first);
  const end = lines.indexOf("}", first);
  for (const { line } of positionTicks!) assert.ok(line - 1 > first && line - 1 < end, `line ${line}`);

  assert.equal(samples!.length, timeDeltas!.length);
  const ids = new Set(nodes.map(({ id }) => id));
  assert.ok(samples!.every((id) => ids.has(id)));
  assert.equal(nodes[0]!.callFrame.functionName, "(root)");
  assert.ok(nodes[0]!.children!.length > 0);
  assert.ok(endTime > startTime);
});

Deno.test("Profile is written once, at its time limit, while the script continues", async () => {
  using place = new Place();
  using profile = openProfile(place.path, { limit: 0 });
  profile.start();
  await until(() => place.said.length > 0, "the profile is said to be there");
  const text = Deno.readTextFileSync(place.path);
  assert.ok(place.read().nodes.length > 0);
  profile[Symbol.dispose]();
  assert.equal(Deno.readTextFileSync(place.path), text);
  assert.equal(place.said.length, 1);
  assert.ok(place.said[0]!.includes(place.path));
  assert.match(place.said[0]!, ENDING);
});

Deno.test("Profile is written when the process ends, where nothing waits", () => {
  using place = new Place();
  using profile = openProfile(place.path, { quiet: true });
  const { nextTick } = process;
  profile.start();
  dispatchEvent(new Event("unload"));
  assert.ok(place.read().nodes.length > 0);
  assert.equal(process.nextTick, nextTick);
  assert.deepEqual(place.said, []);
});

Deno.test("Profile leaves no file when it was not started", () => {
  using place = new Place();
  {
    using _profile = openProfile(place.path);
    assert.deepEqual(place.names, ["my.cpuprofile"]);
  }
  assert.deepEqual(place.names, []);
  assert.deepEqual(place.said, []);
});

Deno.test("openProfile() overwrites nothing, and reports unusable paths", () => {
  using place = new Place();
  Deno.writeTextFileSync(place.path, "mine");
  assert.throws(() => openProfile(place.path), {
    name: "AlreadyExists",
    message:
      `Cannot write profile "${place.path}": it exists already: choose another name with --profile=FILE`,
  });
  assert.equal(Deno.readTextFileSync(place.path), "mine");
  const nowhere = join(place.folder, "none", "a.cpuprofile");
  assert.throws(() => openProfile(nowhere), {
    name: "NotFound",
    message: `Cannot write profile "${nowhere}": folder "${join(place.folder, "none")}" does not exist`,
  });
  assert.throws(() => openProfile(join(place.path, "a")), {
    message: /^Cannot write profile .*: a part of the path is not a folder$/,
  });
});

function quiet(): { device: MemoryDevice; signals: false; watchdog: 0 } {
  return { device: MemoryDevice.pair()[0], signals: false, watchdog: 0 };
}

Deno.test("runScript() with --profile writes a profile of main, and reports it last", async () => {
  using place = new Place();
  const made = script({ main: false } as ImportMeta, quiet(), function main() {
    let sum = 0;
    for (let i = 0; i < ROUNDS; i++) sum += Math.sqrt(i);
    assert.ok(sum > 0);
    return Promise.resolve();
  });
  const args = [`--profile=${place.path}`];
  assert.equal(await runScript(made, args, "warren run", "my.ts"), 0);
  assert.ok(find(place.read(), "main").hitCount! > 10);
  assert.match(place.said.at(-1)!, ENDING);
  assert.match(place.said.at(-2)!, /^memory is closed: /);
});

Deno.test("runScript() with --profile writes one when main fails, and nothing but the failure with --quiet", async () => {
  using place = new Place();
  const made = script({ main: false } as ImportMeta, quiet(), function failing() {
    let sum = 0;
    for (let i = 0; i < ROUNDS; i++) sum += Math.sqrt(i);
    throw new RangeError(`not today: ${sum}`);
  });
  const args = [`--profile=${place.path}`, "-q"];
  assert.equal(await runScript(made, args, "warren run", "my.ts"), 1);
  assert.ok(find(place.read(), "failing").hitCount! > 10);
  assert.equal(place.said.length, 1);
  assert.match(place.said[0]!, /^warren: RangeError: not today: \d.*\n/);
});

Deno.test("runScript() with --profile leaves no file when the tunnel does not open, and opens none without the file", async () => {
  using place = new Place();
  const far = mock.fn((): never => {
    throw new TypeError("Cannot open it");
  });
  const made = script({ main: false } as ImportMeta, { ...quiet(), far }, () => {});
  const args = [`--profile=${place.path}`];
  assert.equal(await runScript(made, args, "warren run", "my.ts"), 1);
  assert.equal(far.mock.callCount(), 1);
  assert.deepEqual(place.names, []);
  Deno.writeTextFileSync(place.path, "mine");
  assert.equal(await runScript(made, args, "warren run", "my.ts"), 1);
  assert.equal(far.mock.callCount(), 1);
  assert.match(place.said.at(-1)!, /^warren: Cannot write profile /);
  for (const [flag, code] of [["--help", 0], ["--dry-run", 1]] as const) {
    const printed = mock.method(console, "log", () => {});
    assert.equal(await runScript(made, [...args, flag], "warren run", "my.ts"), code);
    printed.mock.restore();
  }
});
