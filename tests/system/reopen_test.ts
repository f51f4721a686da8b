/** Devices that are closed and opened anew: what the kernel has removed, and what the loop waits for. */

import assert from "node:assert/strict";
import { libc } from "../../driver/linux/libc.ts";
import { PollWaiter } from "../../driver/linux/waiter.ts";
import { openNamespace, runModule, systemTest } from "../kit/system.ts";

const NEEDS = { programs: ["ip", "ping"] };
const SCENARIO = new URL("./reopen_scenario.ts", import.meta.url);
// Specification: sys/eventfd.h
const EFD_NONBLOCK = 0o4000;
/** After this, a wait has failed (milliseconds). */
const LIMIT = 10_000;
const PERMISSIONS = ["--allow-all"];
// Opened for good, so not within a test.
if (Deno.build.os === "linux") libc();
const one = BigUint64Array.of(1n);

interface Round {
  before: boolean;
  after: boolean;
}

systemTest(
  "Tunnel.closed resolves when the kernel has removed the device, whose name is free at once",
  NEEDS,
  async () => {
    await using namespace = await openNamespace();
    const result = await runModule<{ rounds: Round[]; answered: boolean[] }>(
      namespace,
      SCENARIO,
      ["reopen"],
      PERMISSIONS,
    );
    assert.deepEqual(result.rounds, new Array(10).fill({ before: true, after: false }));
    assert.deepEqual(result.answered, [true, true]);
  },
);

systemTest("Tunnel.closed of a loop's only tunnel resolves when its device is gone", NEEDS, async () => {
  await using namespace = await openNamespace();
  const result = await runModule<{ rounds: Round[] }>(namespace, SCENARIO, ["alone"], PERMISSIONS);
  assert.deepEqual(result.rounds, new Array(10).fill({ before: true, after: false }));
});

systemTest("Tunnel whose descriptor has the number of a closed one gets its packets", NEEDS, async () => {
  await using namespace = await openNamespace();
  const result = await runModule(namespace, SCENARIO, ["reuse"], PERMISSIONS);
  assert.deepEqual(result, { reused: true, answered: [true, true, true], there: [] });
});

systemTest("PollWaiter.forget() lets a descriptor's number be waited for anew", { root: false }, async () => {
  const { eventfd, writeFrom, close } = libc();
  using waiter = new PollWaiter();
  for (let round = 0; round < 20; round++) {
    const first = eventfd(0, EFD_NONBLOCK);
    waiter.clear();
    waiter.add(first, true, false);
    const parked = waiter.park(LIMIT);
    waiter.wake();
    assert.equal(await parked, false);
    // The poll beside this thread still looks at it.
    await waiter.forget(first);
    close(first);
    const second = eventfd(0, EFD_NONBLOCK);
    assert.equal(second, first);
    waiter.clear();
    waiter.add(second, true, false);
    const again = waiter.park(LIMIT);
    writeFrom(second, one, 8n);
    assert.equal(await again, true);
    await waiter.forget(second);
    close(second);
  }
});

systemTest(
  "PollWaiter.forget() of one descriptor leaves the others waited for",
  { root: false },
  async () => {
    const { eventfd, writeFrom, close } = libc();
    using waiter = new PollWaiter();
    const [stays, goes] = [eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK)];
    waiter.clear();
    waiter.add(stays, true, false);
    waiter.add(goes, true, false);
    const parked = waiter.park(LIMIT);
    waiter.wake();
    await parked;
    await waiter.forget(goes);
    close(goes);
    await waiter.forget(goes);
    waiter.clear();
    waiter.add(stays, true, false);
    const again = waiter.park(LIMIT);
    writeFrom(stays, one, 8n);
    assert.equal(await again, true);
    await waiter.forget(stays);
    close(stays);
  },
);
