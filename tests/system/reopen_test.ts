/** Devices that are closed and reopened: removal by the kernel, and the descriptors that the loop waits for. */

import assert from "node:assert/strict";
import { posix } from "../../driver/linux/libc.ts";
import { PollWaiter } from "../../driver/posix/waiter.ts";
import { EventFd } from "../kit/event_fd.ts";
import { openNamespace, runModule, systemTest } from "../kit/system.ts";

const NEEDS = { programs: ["ip", "ping"] };
const SCENARIO = new URL("./reopen_scenario.ts", import.meta.url);
/** After this, a wait has failed (milliseconds). */
const LIMIT = 10_000;
const PERMISSIONS = ["--allow-all"];
// Stays open, so it is not opened within a test.
if (Deno.build.os === "linux") posix();

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

systemTest("PollWaiter.forget() allows a wait for a reused descriptor number", { root: false }, async () => {
  using waiter = new PollWaiter(posix());
  for (let round = 0; round < 20; round++) {
    const first = new EventFd();
    waiter.clear();
    waiter.add(first.fd, true, false);
    const parked = waiter.park(LIMIT);
    waiter.wake();
    assert.equal(await parked, false);
    // The poll on the other thread still has it.
    await waiter.forget(first.fd);
    first[Symbol.dispose]();
    const second = new EventFd();
    assert.equal(second.fd, first.fd);
    waiter.clear();
    waiter.add(second.fd, true, false);
    const again = waiter.park(LIMIT);
    second.raise();
    assert.equal(await again, true);
    await waiter.forget(second.fd);
    second[Symbol.dispose]();
  }
});

systemTest(
  "PollWaiter.forget() of one descriptor leaves the others waited for",
  { root: false },
  async () => {
    using waiter = new PollWaiter(posix());
    const [stays, goes] = [new EventFd(), new EventFd()];
    waiter.clear();
    waiter.add(stays.fd, true, false);
    waiter.add(goes.fd, true, false);
    const parked = waiter.park(LIMIT);
    waiter.wake();
    await parked;
    await waiter.forget(goes.fd);
    goes[Symbol.dispose]();
    await waiter.forget(goes.fd);
    waiter.clear();
    waiter.add(stays.fd, true, false);
    const again = waiter.park(LIMIT);
    stays.raise();
    assert.equal(await again, true);
    await waiter.forget(stays.fd);
    stays[Symbol.dispose]();
  },
);
