/** The loop's wait on Linux, over eventfds. */

import assert from "node:assert/strict";
import { posix } from "../../driver/linux/libc.ts";
import { PollWaiter } from "../../driver/posix/waiter.ts";
import { EventFd } from "../kit/event_fd.ts";
import { systemTest } from "../kit/system.ts";

const NEEDS = { root: false };
// Stays open, so it is not opened within a test.
if (Deno.build.os === "linux") posix();

systemTest("PollWaiter.wait() returns whether a descriptor is ready", NEEDS, () => {
  using waiter = new PollWaiter(posix());
  using event = new EventFd();
  waiter.add(event.fd, true, false);
  assert.equal(waiter.wait(1), false);
  event.raise();
  waiter.clear();
  waiter.add(event.fd, true, false);
  assert.equal(waiter.wait(1000), true);
  waiter.clear();
  waiter.add(event.fd, false, true);
  assert.equal(waiter.wait(1000), true);
});

systemTest(
  "PollWaiter.park() ends when a descriptor is ready, at its time, and by wake()",
  NEEDS,
  async () => {
    using waiter = new PollWaiter(posix());
    using event = new EventFd();
    const park = (milliseconds: number) => {
      waiter.clear();
      waiter.add(event.fd, true, false);
      return waiter.park(milliseconds);
    };
    await park(5);
    const woken = park(Infinity);
    waiter.wake();
    await woken;
    const ready = park(Infinity);
    event.raise();
    await ready;
  },
);

systemTest("PollWaiter.park() follows a change of descriptors during a poll", NEEDS, async () => {
  using waiter = new PollWaiter(posix());
  using first = new EventFd();
  using second = new EventFd();
  waiter.add(first.fd, true, false);
  await waiter.park(1);
  waiter.clear();
  waiter.add(first.fd, true, false);
  waiter.add(second.fd, true, false);
  const parked = waiter.park(Infinity);
  second.raise();
  await parked;
});

systemTest("PollWaiter.wake() is not lost while a poll is being replaced", NEEDS, async () => {
  using waiter = new PollWaiter(posix());
  using first = new EventFd();
  using second = new EventFd();
  waiter.add(first.fd, true, false);
  await waiter.park(1);
  waiter.clear();
  waiter.add(second.fd, true, false);
  const parked = waiter.park(Infinity);
  waiter.wake();
  await parked;
  await waiter.forget(second.fd);
});

systemTest(
  "PollWaiter.watch() calls back in look() and park() until it is ended",
  NEEDS,
  async () => {
    using waiter = new PollWaiter(posix());
    using event = new EventFd();
    let calls = 0;
    const end = waiter.watch(event.fd, () => {
      calls++;
      event.lower();
    });
    event.raise();
    waiter.look();
    assert.equal(calls, 1);
    event.raise();
    waiter.clear();
    await waiter.park(1000);
    assert.equal(calls, 2);
    end();
    event.raise();
    waiter.look();
    waiter.clear();
    using other = new EventFd();
    waiter.add(other.fd, true, false);
    assert.equal(await waiter.park(1), false);
    await waiter.forget(other.fd);
    assert.equal(calls, 2);
  },
);

systemTest("PollWaiter.isReady() reports the descriptors that ended the wait", NEEDS, () => {
  using waiter = new PollWaiter(posix());
  using first = new EventFd();
  using second = new EventFd();
  first.raise();
  const places = [first, second].map(({ fd }) => waiter.add(fd, true, false));
  assert.equal(waiter.wait(1000), true);
  assert.deepEqual(places.map((place) => waiter.isReady(place)), [true, false]);
  waiter.clear();
  const place = waiter.add(second.fd, false, true);
  assert.equal(waiter.wait(1000), true);
  assert.equal(waiter.isReady(place), true);
});

systemTest("PollWaiter.forget() ends the poll that has a descriptor", NEEDS, async () => {
  using waiter = new PollWaiter(posix());
  using first = new EventFd();
  using second = new EventFd();
  waiter.add(first.fd, true, false);
  assert.equal(await waiter.park(1), false);
  await waiter.forget(second.fd);
  await waiter.forget(first.fd);
  waiter.clear();
  waiter.add(first.fd, true, false);
  const parked = waiter.park(Infinity);
  first.raise();
  assert.equal(await parked, true);
});
