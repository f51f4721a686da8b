/** Checks of the stand-in for wintun.dll, under Wine; stand_in_test.ts runs it. */

import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import { countersOf, openStandIn, type StandIn, wide } from "./stand_in.ts";

const Code = {
  ERROR_FILE_NOT_FOUND: 2,
  ERROR_ACCESS_DENIED: 5,
  ERROR_INVALID_DATA: 13,
  ERROR_SHARING_VIOLATION: 32,
  ERROR_HANDLE_EOF: 38,
  ERROR_INVALID_PARAMETER: 87,
  ERROR_BUFFER_OVERFLOW: 111,
  ERROR_NO_MORE_ITEMS: 259,
  ERROR_NOT_FOUND: 1168,
  ERROR_ALREADY_INITIALIZED: 1247,
  ERROR_DEVICE_NOT_AVAILABLE: 4319,
} as const;
const WAIT_OBJECT_0 = 0;
const WAIT_TIMEOUT = 258;
const MIN_CAPACITY = 0x2_0000;
const LONGEST = 0xffff;

const standIn: StandIn = openStandIn();
const { symbols: { GetLastError, WaitForSingleObject, RtlMoveMemory } } = Deno.dlopen("kernel32.dll", {
  // DWORD GetLastError(void);
  GetLastError: { parameters: [], result: "u32" },
  // DWORD WaitForSingleObject(HANDLE hHandle, DWORD dwMilliseconds);
  WaitForSingleObject: { parameters: ["pointer", "u32"], result: "u32" },
  // void RtlMoveMemory(void *Destination, const void *Source, SIZE_T Length);
  RtlMoveMemory: { parameters: ["pointer", "buffer", "usize"], result: "void" },
});

// void CALLBACK (WINTUN_LOGGER_LEVEL Level, DWORD64 Timestamp, LPCWSTR Message);
const LOGGER = { parameters: ["i32", "u64", "pointer"], result: "void" } as const;

type Pointer = Deno.PointerObject;

/** An adapter with a session of minimum capacity. */
class Rig implements Disposable {
  readonly name: Uint16Array<ArrayBuffer>;
  readonly adapter: Pointer;
  readonly session: Pointer;
  readonly #size = new Uint32Array(1);

  constructor(name: string, capacity: number = MIN_CAPACITY) {
    this.name = wide(name);
    this.adapter = standIn.WintunCreateAdapter(this.name, wide("Test"), null)!;
    this.session = standIn.WintunStartSession(this.adapter, capacity)!;
    ok(this.session !== null);
  }

  inject(bytes: Uint8Array<ArrayBuffer>): boolean {
    return standIn.StandInInject(this.name, bytes, bytes.length) !== 0;
  }

  /** Receives the next packet without releasing it, or returns the error. */
  receive(): { pointer: Pointer; bytes: Uint8Array } | number {
    const pointer = standIn.WintunReceivePacket(this.session, this.#size);
    if (pointer === null) return GetLastError();
    const bytes = new Uint8Array(new Deno.UnsafePointerView(pointer).getArrayBuffer(this.#size[0]!)).slice();
    return { pointer, bytes };
  }

  release(pointer: Pointer): void {
    standIn.WintunReleaseReceivePacket(this.session, pointer);
  }

  allocate(bytes: Uint8Array<ArrayBuffer>): Pointer | number {
    const pointer = standIn.WintunAllocateSendPacket(this.session, bytes.length);
    if (pointer === null) return GetLastError();
    RtlMoveMemory(pointer, bytes, BigInt(bytes.length));
    return pointer;
  }

  send(pointer: Pointer): void {
    standIn.WintunSendPacket(this.session, pointer);
  }

  /** Returns the next packet that was sent. */
  take(): Uint8Array | number {
    const bytes = new Uint8Array(LONGEST);
    const length = standIn.StandInTake(this.name, bytes, bytes.length);
    return length > 0 ? bytes.subarray(0, length) : length;
  }

  [Symbol.dispose](): void {
    standIn.WintunEndSession(this.session);
    standIn.WintunCloseAdapter(this.adapter);
  }
}

function packet(length: number, number = 0): Uint8Array<ArrayBuffer> {
  const bytes = Uint8Array.from({ length }, (_, i) => i * 7 + number);
  bytes[0] = 0x45;
  bytes[1] = number;
  return bytes;
}

function received(rig: Rig): { pointer: Pointer; bytes: Uint8Array } {
  const got = rig.receive();
  if (typeof got === "number") throw new Error(`Nothing came: ${got}`);
  return got;
}

function pointer(result: Pointer | number): Pointer {
  if (typeof result === "number") throw new Error(`There is no room: ${result}`);
  return result;
}

/** Declares a test and checks that it broke the rules of the library exactly `misuses` times. */
function check(name: string, body: () => void | Promise<void>, misuses = 0): void {
  Deno.test(name, async () => {
    const before = countersOf(standIn);
    await body();
    const after = countersOf(standIn);
    strictEqual(after.misuses - before.misuses, misuses, "misuses");
    strictEqual(after.handlesOpen, before.handlesOpen, "handles");
  });
}

check("the driver's version is 0, ERROR_FILE_NOT_FOUND before the first adapter, and 0.14 after it", () => {
  strictEqual(standIn.WintunGetRunningDriverVersion(), 0);
  strictEqual(GetLastError(), Code.ERROR_FILE_NOT_FOUND);
  using _rig = new Rig("version");
  strictEqual(standIn.WintunGetRunningDriverVersion(), 14);
  strictEqual(standIn.WintunDeleteDriver(), 0);
  strictEqual(GetLastError(), Code.ERROR_SHARING_VIOLATION);
});

check("adapter names: denied, failing once, too long, unknown", () => {
  const create = (name: string) => standIn.WintunCreateAdapter(wide(name), wide("Test"), null);
  strictEqual(create("deny"), null);
  strictEqual(GetLastError(), Code.ERROR_ACCESS_DENIED);
  strictEqual(create("stumble"), null);
  strictEqual(GetLastError(), Code.ERROR_DEVICE_NOT_AVAILABLE);
  const second = create("stumble");
  ok(second !== null);
  standIn.WintunCloseAdapter(second);
  strictEqual(create("x".repeat(128)), null);
  strictEqual(GetLastError(), Code.ERROR_BUFFER_OVERFLOW);
  strictEqual(standIn.WintunOpenAdapter(wide("nobody")), null);
  strictEqual(GetLastError(), Code.ERROR_NOT_FOUND);
  standIn.WintunCloseAdapter(null);
});

check("a new adapter takes the name of another one; case is ignored", () => {
  const create = () => standIn.WintunCreateAdapter(wide("Same"), wide("Test"), null)!;
  const luidOf = (adapter: Pointer) => {
    const luid = new BigUint64Array(1);
    standIn.WintunGetAdapterLUID(adapter, luid);
    return luid[0]!;
  };
  const [first, second] = [create(), create()];
  const opened = [standIn.WintunOpenAdapter(wide("sAME 1"))!, standIn.WintunOpenAdapter(wide("same"))!];
  deepStrictEqual(opened.map(luidOf), [luidOf(first), luidOf(second)]);
  ok(luidOf(first) !== luidOf(second));
  strictEqual(luidOf(first) >> 48n, 53n);
  for (const adapter of [...opened, first, second]) standIn.WintunCloseAdapter(adapter);
  strictEqual(standIn.WintunOpenAdapter(wide("same")), null);
});

check("a session's capacity is a power of two in bounds, and an adapter has one session", () => {
  using rig = new Rig("sessions");
  for (const capacity of [0, 0x1_0000, 0x2_0001, 0x3_0000, 0x800_0000]) {
    strictEqual(standIn.WintunStartSession(rig.adapter, capacity), null);
    strictEqual(GetLastError(), Code.ERROR_INVALID_PARAMETER, String(capacity));
  }
  strictEqual(standIn.WintunStartSession(rig.adapter, MIN_CAPACITY), null);
  strictEqual(GetLastError(), Code.ERROR_ALREADY_INITIALIZED);
});

check("packets from the system arrive in order, and an empty ring is ERROR_NO_MORE_ITEMS", () => {
  using rig = new Rig("order");
  strictEqual(rig.receive(), Code.ERROR_NO_MORE_ITEMS);
  for (const length of [1, 20, 1400, LONGEST]) ok(rig.inject(packet(length)));
  for (const length of [1, 20, 1400, LONGEST]) {
    const { pointer, bytes } = received(rig);
    deepStrictEqual(bytes, packet(length));
    rig.release(pointer);
  }
  strictEqual(rig.receive(), Code.ERROR_NO_MORE_ITEMS);
});

check("the ring holds its capacity less one word, and a packet at its end runs into the slack", () => {
  using rig = new Rig("capacity");
  // 1020 and the size's 4 bytes: 128 of them would be the capacity to the byte.
  let held = 0;
  while (rig.inject(packet(1020))) held++;
  strictEqual(held, MIN_CAPACITY / 1024 - 1);
  strictEqual(rig.inject(packet(1016)), true);
  strictEqual(rig.inject(packet(1)), false);
  for (; held >= 0; held--) rig.release(received(rig).pointer);
  // The head is now 4 bytes before the capacity.
  ok(rig.inject(packet(LONGEST)));
  const { pointer, bytes } = received(rig);
  deepStrictEqual(bytes, packet(LONGEST));
  rig.release(pointer);
  ok(rig.inject(packet(100)));
  deepStrictEqual(received(rig).bytes, packet(100));
});

check("release out of order frees up to the first packet that is held", () => {
  using rig = new Rig("release");
  while (rig.inject(packet(1020))) continue;
  const all = Array.from({ length: 127 }, () => received(rig).pointer);
  for (const pointer of all.slice(1)) rig.release(pointer);
  strictEqual(rig.inject(packet(1020)), false, "the first one holds them all");
  rig.release(all[0]!);
  for (let i = 0; i < 127; i++) strictEqual(rig.inject(packet(1020)), true);
});

check("a packet that was not received cannot be released", () => {
  using rig = new Rig("twice");
  rig.inject(packet(20));
  rig.inject(packet(20));
  const { pointer } = received(rig);
  rig.release(pointer);
  rig.release(pointer);
}, 1);

check("the order of allocation is the order of sending", () => {
  using rig = new Rig("allocation");
  const [first, second, third] = [1, 2, 3].map((number) => pointer(rig.allocate(packet(60, number))));
  rig.send(third!);
  rig.send(second!);
  strictEqual(rig.take(), 0, "the first one blocks them");
  rig.send(first!);
  const numbers = [rig.take(), rig.take(), rig.take()].map((bytes) => (bytes as Uint8Array)[1]);
  deepStrictEqual(numbers, [1, 2, 3]);
  strictEqual(rig.take(), 0);
});

check("a full ring is ERROR_BUFFER_OVERFLOW until the system takes a packet", () => {
  using rig = new Rig("overflow");
  let sent = 0;
  for (let got; typeof (got = rig.allocate(packet(1020))) !== "number"; sent++) rig.send(got);
  strictEqual(sent, MIN_CAPACITY / 1024 - 1);
  strictEqual(rig.allocate(packet(1020)), Code.ERROR_BUFFER_OVERFLOW);
  standIn.StandInStall(1);
  strictEqual(rig.take(), 0);
  standIn.StandInStall(0);
  deepStrictEqual(rig.take(), packet(1020));
  rig.send(pointer(rig.allocate(packet(1020))));
});

check("a packet that is not IP is discarded", () => {
  using rig = new Rig("discard");
  const before = countersOf(standIn);
  for (
    const bytes of [packet(19), new Uint8Array(60), packet(39).fill(0x60, 0, 1), packet(40).fill(0x60, 0, 1)]
  ) {
    rig.send(pointer(rig.allocate(bytes)));
  }
  strictEqual((rig.take() as Uint8Array).length, 40);
  strictEqual(countersOf(standIn).discarded - before.discarded, 3);
});

check("packets left at the end are counted", () => {
  const before = countersOf(standIn);
  {
    using rig = new Rig("rest");
    rig.inject(packet(20));
    rig.inject(packet(20));
    received(rig);
    rig.send(pointer(rig.allocate(packet(20))));
    pointer(rig.allocate(packet(20)));
  }
  const after = countersOf(standIn);
  strictEqual(after.unreadAtEnd - before.unreadAtEnd, 1);
  strictEqual(after.untakenAtEnd - before.untakenAtEnd, 1);
  strictEqual(after.unsentAtEnd - before.unsentAtEnd, 1);
});

check("a corrupt ring is ERROR_INVALID_DATA until the session restarts", () => {
  const rig = new Rig("corrupt");
  rig.inject(packet(20));
  ok(standIn.StandInCorrupt(rig.name) !== 0);
  rig.inject(packet(20));
  rig.release(received(rig).pointer);
  strictEqual(rig.receive(), Code.ERROR_INVALID_DATA);
  strictEqual(rig.receive(), Code.ERROR_INVALID_DATA);
  standIn.WintunEndSession(rig.session);
  const session = standIn.WintunStartSession(rig.adapter, MIN_CAPACITY)!;
  strictEqual(standIn.WintunReceivePacket(session, new Uint32Array(1)), null);
  strictEqual(GetLastError(), Code.ERROR_NO_MORE_ITEMS);
  standIn.WintunEndSession(session);
  standIn.WintunCloseAdapter(rig.adapter);
});

check("a removed adapter is ERROR_HANDLE_EOF in both directions, and wakes the reader", () => {
  using rig = new Rig("removed");
  rig.inject(packet(20));
  const event = standIn.WintunGetReadWaitEvent(rig.session);
  strictEqual(WaitForSingleObject(event, 0), WAIT_OBJECT_0);
  ok(standIn.StandInEnd(rig.name) !== 0);
  strictEqual(WaitForSingleObject(event, 0), WAIT_OBJECT_0);
  strictEqual(rig.receive(), Code.ERROR_HANDLE_EOF);
  strictEqual(rig.allocate(packet(20)), Code.ERROR_HANDLE_EOF);
  strictEqual(rig.take(), -1);
  strictEqual(rig.inject(packet(20)), false);
});

check("the read event is set at every arrival, and one wait resets it", () => {
  using rig = new Rig("event");
  const event = standIn.WintunGetReadWaitEvent(rig.session);
  strictEqual(WaitForSingleObject(event, 0), WAIT_TIMEOUT);
  rig.inject(packet(20));
  rig.inject(packet(20));
  strictEqual(WaitForSingleObject(event, 0), WAIT_OBJECT_0);
  strictEqual(WaitForSingleObject(event, 0), WAIT_TIMEOUT);
  rig.inject(packet(20));
  strictEqual(WaitForSingleObject(event, 0), WAIT_OBJECT_0);
});

check("calls on a session after its end, and a second end, are misuses", () => {
  const rig = new Rig("late");
  standIn.WintunEndSession(rig.session);
  strictEqual(rig.receive(), Code.ERROR_HANDLE_EOF);
  standIn.WintunEndSession(rig.session);
  standIn.WintunCloseAdapter(rig.adapter);
}, 2);

check("an adapter closed before its session ends the session, and is a misuse", () => {
  const rig = new Rig("early");
  standIn.WintunCloseAdapter(rig.adapter);
  strictEqual(rig.receive(), Code.ERROR_HANDLE_EOF);
  standIn.WintunEndSession(rig.session);
}, 1);

check("random errors come from a seed, and lose no packet", () => {
  using rig = new Rig("random", 0x10_0000);
  const before = countersOf(standIn);
  standIn.StandInSeed(7n);
  let got = 0;
  for (let i = 0; i < 1000; i++) ok(rig.inject(packet(40)));
  for (let tries = 0; got < 1000 && tries < 2000; tries++) {
    const next = rig.receive();
    if (typeof next === "number") continue;
    rig.release(next.pointer);
    got++;
  }
  standIn.StandInSeed(0n);
  strictEqual(got, 1000);
  ok(countersOf(standIn).errorsAtRandom > before.errorsAtRandom);
});

check("the logger receives lines of this thread and another, and errors end with their code", async () => {
  const logged: string[] = [];
  const another = Promise.withResolvers<void>();
  const logger = Deno.UnsafeCallback.threadSafe(
    LOGGER,
    (level, time, message) => {
      let text = "";
      const view = new Deno.UnsafePointerView(message!);
      for (let at = 0, unit; (unit = view.getUint16(at)) !== 0; at += 2) text += String.fromCharCode(unit);
      logged.push(`${level} ${text}`);
      ok(time > 116_444_736_000_000_000n, "after 1970");
      if (text.includes("42")) another.resolve();
    },
  );
  standIn.WintunSetLogger(logger.pointer);
  standIn.StandInLog(41, 0);
  standIn.StandInLog(42, 1);
  await another.promise;
  strictEqual(standIn.WintunCreateAdapter(wide("deny"), wide("Test"), null), null);
  strictEqual(GetLastError(), Code.ERROR_ACCESS_DENIED);
  standIn.WintunSetLogger(null);
  standIn.StandInLog(43, 0);
  logger.close();
  deepStrictEqual(logged, [
    "1 From another thread: 41",
    "1 From another thread: 42",
    "2 Failed to create private namespace (Code 0x00000005)",
  ]);
});

check("creating an adapter on another thread works while a thread logs under the lock", async () => {
  let lines = 0;
  const logger = Deno.UnsafeCallback.threadSafe(LOGGER, () => void lines++);
  standIn.WintunSetLogger(logger.pointer);
  const adapter = await standIn.createAside(wide("chatter"), wide("Test"), null);
  standIn.WintunSetLogger(null);
  ok(adapter !== null);
  ok(lines >= 1);
  standIn.WintunCloseAdapter(adapter);
  logger.close();
});
