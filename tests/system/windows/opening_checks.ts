/** Opening Windows devices: failures, their messages, and cleanup; device_test.ts runs it under Wine. */

import { deepStrictEqual, match, ok, rejects, strictEqual } from "node:assert/strict";
import { type DeviceOptions, DriverError, openDevice } from "../../../driver/mod.ts";
import { type Device, PacketBatch } from "../../../lib/core/mod.ts";
import { openTunnel } from "../../../runtime/mod.ts";
import { TestHost, turn } from "../../kit/host.ts";
import { countersSince, driverTest, Far, MIN_RING, standIn } from "./rig.ts";
import { countersOf } from "./stand_in.ts";

/** Rounds of opening and closing, after some rounds for what stays open. */
const ROUNDS = 200;
const WARM_UP = 20;

/** ntdll.h: `struct SYSTEM_PROCESS_INFORMATION`; only the fields in use. */
const ProcessInformation = { NextEntryOffset: 0, UniqueProcessId: 80, HandleCount: 96 } as const;
const SYSTEM_PROCESS_INFORMATION = 5;
/** More than the list of all Wine processes needs (bytes). */
const ROOM = 1024 * 1024;

function open(name: string, options: DeviceOptions = {}): Promise<Device> {
  return openDevice({ name, windows: { ringCapacity: MIN_RING }, ...options });
}

async function close(device: Device): Promise<void> {
  device.close();
  await device.closed;
}

driverTest(
  "an adapter that Windows denies fails at once, with the log of Wintun and the missing right",
  async () => {
    const before = countersOf(standIn);
    await rejects(open("deny"), (error) => {
      ok(error instanceof Deno.errors.PermissionDenied);
      strictEqual(
        error.message,
        'Cannot open device "deny": ERROR_ACCESS_DENIED (5): Wintun reports: Failed to create private namespace ' +
          '(Code 0x00000005): run it in a terminal that was opened by "Run as administrator"',
      );
      strictEqual((error.cause as Error).message, "Failed to create private namespace (Code 0x00000005)");
      return true;
    });
    strictEqual(countersSince(before).logged, 1, "it is not tried again");
  },
);

driverTest("an adapter that cannot be created at first is tried again", async () => {
  const before = countersOf(standIn);
  await close(await open("stumble"));
  const { adaptersCreated, adaptersClosed } = countersSince(before);
  deepStrictEqual([adaptersCreated, adaptersClosed], [1, 1]);
});

driverTest(
  "an adapter has one session: a second device of its name is refused, and the first one keeps working",
  async () => {
    const first = await open("twice");
    try {
      await rejects(open("TWICE"), (error) => {
        ok(error instanceof DriverError);
        match(error.message, /^Cannot open device "TWICE": ERROR_ALREADY_INITIALIZED \(1247\): /);
        match(error.message, /Wintun reports: .*Failed to register rings \(Code 0x000004DF\)/);
        match(error.message, /: another program uses this adapter$/);
        strictEqual(error.errno, 1247);
        return true;
      });
      const host = new TestHost();
      first.attach(host);
      ok(new Far("twice").inject(Uint8Array.of(0x45, ...new Uint8Array(59))));
      const batch = new PacketBatch();
      strictEqual(first.read(batch), 1);
      host.pool.give(batch.packets[0]!);
    } finally {
      await close(first);
    }
    await close(await open("twice"));
  },
);

driverTest("the name of another kind of interface is refused, and nothing is created", async () => {
  const before = countersOf(standIn);
  Deno.env.set("STAND_IN_ALIASES", "Ethernet,tun0");
  try {
    await rejects(open("ethernet"), {
      name: "DriverError",
      code: "ERROR_DUP_NAME",
      message:
        /^Cannot open device "ethernet": ERROR_DUP_NAME \(52\): .*does not belong to Wintun has this name: choose another name$/,
    });
    const device = await open("tun%d");
    strictEqual(device.name, "tun1");
    await close(device);
  } finally {
    Deno.env.delete("STAND_IN_ALIASES");
  }
  strictEqual(countersSince(before).adaptersCreated, 1);
});

driverTest("a session that cannot be started at first is tried again once, a second later", async () => {
  const before = countersOf(standIn);
  standIn.StandInRefuseSessions(1, 1450);
  const start = performance.now();
  await close(await open("early"));
  const took = performance.now() - start;
  ok(took > 900, `it took ${took} ms`);
  const { adaptersCreated, sessionsRefused, sessionsStarted } = countersSince(before);
  deepStrictEqual([adaptersCreated, sessionsRefused, sessionsStarted], [1, 1, 1]);
});

for (
  const { error, message } of [
    { error: 5, message: /^Cannot open device "refused": ERROR_ACCESS_DENIED \(5\): .*as administrator"$/ },
    { error: 1247, message: /^Cannot open device "refused": ERROR_ALREADY_INITIALIZED \(1247\): / },
  ]
) {
  driverTest(`a session that is refused by error ${error} is not tried again`, async () => {
    const before = countersOf(standIn);
    standIn.StandInRefuseSessions(2, error);
    await rejects(open("refused"), { message });
    const { adaptersClosed, sessionsRefused } = countersSince(before);
    deepStrictEqual([adaptersClosed, sessionsRefused], [1, 1]);
  });
}

driverTest("a session that cannot be started leaves no adapter", async () => {
  const before = countersOf(standIn);
  standIn.StandInRefuseSessions(2, 1450);
  await rejects(open("sessionless"), {
    name: "DriverError",
    message:
      'Cannot open device "sessionless": error 1450: Wintun reports: Failed to register rings (Code 0x000005AA)',
  });
  const { adaptersCreated, adaptersClosed, sessionsStarted } = countersSince(before);
  deepStrictEqual([adaptersCreated, adaptersClosed, sessionsStarted], [1, 1, 0]);
});

driverTest(
  "another thread of Wintun may log while an adapter is created, under the lock that creation needs",
  async () => {
    const before = countersOf(standIn);
    for (let round = 0; round < 10; round++) await close(await open("chatter"));
    ok(countersSince(before).logged >= 20, "each time it logs, and so does the maker");
  },
);

driverTest("devices may be opened and closed at the same time", async () => {
  const names = ["slow0", "chatter1", "beside2", "beside3"];
  const devices = await Promise.all(names.map((name) => open(name)));
  deepStrictEqual(devices.map(({ name }) => name), names);
  await Promise.all(devices.map(close));
});

const { symbols: { NtQuerySystemInformation } } = Deno.dlopen("ntdll.dll", {
  // NTSTATUS NtQuerySystemInformation(SYSTEM_INFORMATION_CLASS Class, void *Information, ULONG Length, ULONG *Needed);
  NtQuerySystemInformation: { parameters: ["i32", "buffer", "u32", "pointer"], result: "u32" },
});

/** Returns the number of handles of this process; GetProcessHandleCount does not work under Wine. */
function handles(): number {
  const view = new DataView(new ArrayBuffer(ROOM));
  const status = NtQuerySystemInformation(SYSTEM_PROCESS_INFORMATION, view.buffer, ROOM, null);
  strictEqual(status, 0);
  for (let at = 0;;) {
    const id = view.getBigUint64(at + ProcessInformation.UniqueProcessId, true);
    if (id === BigInt(Deno.pid)) return view.getUint32(at + ProcessInformation.HandleCount, true);
    const next = view.getUint32(at + ProcessInformation.NextEntryOffset, true);
    ok(next > 0, "this process is among them");
    at += next;
  }
}

driverTest(`${ROUNDS} rounds of opening and closing leave no handle`, async () => {
  let rounds = 0;
  const round = async () => {
    const tunnel = await openTunnel({
      name: "round",
      address: "10.9.0.1/24",
      route: "10.8.0.0/16",
      windows: { ringCapacity: MIN_RING },
      signals: false,
      watchdog: 0,
    });
    const running = tunnel.run();
    // Every other time, the loop is waiting.
    if (++rounds % 2 === 0) await turn();
    tunnel.close();
    await running;
  };
  for (let i = 0; i < WARM_UP; i++) await round();
  const before = handles();
  ok(before > 10, `${before} handles`);
  for (let i = 0; i < ROUNDS; i++) await round();
  const more = handles() - before;
  // Threads of Deno start and end.
  ok(more < ROUNDS / 10, `${more} more than ${before}`);
});
