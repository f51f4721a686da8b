/** Calls of IP Helper by the Windows driver and their undo, byte by byte; device_test.ts runs it under Wine. */

import { deepStrictEqual, ok, rejects, strictEqual } from "node:assert/strict";
import { type DeviceOptions, DriverError, openDevice } from "../../../driver/mod.ts";
import { addressOf } from "../../../driver/native_memory.ts";
import { adapterGuid } from "../../../driver/windows/adapter.ts";
import { Family, iphlpapi } from "../../../driver/windows/iphlpapi.ts";
import { dnsSettings } from "../../../driver/windows/rows.ts";
import type { Device } from "../../../lib/core/mod.ts";
import { countersSince, driverTest, MIN_RING, standIn } from "./rig.ts";
import { countersOf, readNetwork, wide } from "./stand_in.ts";

/** Index of the next adapter: the stand-in counts from the seventh interface of Wintun. */
const nextIndex = () => 7 + countersOf(standIn).adaptersCreated;

/** MTU of a new Wintun adapter (bytes). */
const DEFAULT_MTU = 65_535;

const CALLS = Deno.env.get("STAND_IN_CALLS")!;
const NETWORK = Deno.env.get("STAND_IN_NETWORK")!;

/** Parses the bytes of a row; blanks and bars are ignored, `00*8` is eight zeros. */
function golden(...parts: string[]): string {
  return parts.join(" ").replaceAll(/00\*(\d+)/g, (_, count) => "00".repeat(Number(count))).replaceAll(
    /[\s|]/g,
    "",
  );
}

/** NET_LUID of Wintun's type, 53, and an index. */
const luidOf = (at: number) => `000000${at.toString(16).padStart(2, "0")}00003500`;
/** NET_IFINDEX that the stand-in gives it. */
const indexOf = (at: number) => `${(at + 20).toString(16).padStart(2, "0")}000000`;

const ADDRESS = (at: number, sockaddr: string, length: string) =>
  golden(
    sockaddr,
    luidOf(at),
    "00000000 | 10000000 10000000 ffffffff ffffffff",
    length,
    "000000 04000000 00000000 00*8",
  );

const ROUTE = (at: number, to: string, length: string, via: string, metric: string) =>
  golden(
    luidOf(at),
    "00000000 |",
    to,
    "|",
    length,
    "000000 |",
    via,
    "| 00000000 ffffffff ffffffff",
    metric,
    "03000000 01010101 00000000 00000000",
  );

/** MIB_IPINTERFACE_ROW of the stand-in, after the fields that are set. */
const INTERFACE = (at: number, family: string, automatic: string, metric: string, mtu: string) =>
  golden(
    family,
    "00*6",
    luidOf(at),
    indexOf(at),
    "00*24",
    automatic,
    "00*7 | 00000000 00000000 30750000 00*80 | 00000000",
    metric,
    mtu,
    "01 00 01 00*9",
  );

/** A call with its name and bytes, and its result if it failed. */
interface Call {
  readonly name: string;
  readonly result: number;
  readonly bytes: string;
}

/** Returns the changing calls since the last look. */
function changes(): Call[] {
  const lines = Deno.readTextFileSync(CALLS).split("\n").filter((line) => line !== "");
  Deno.writeTextFileSync(CALLS, "");
  return lines.map((line) => line.split(" ")).map(([name, result, bytes]) => ({
    name: name!,
    result: Number(result),
    bytes: bytes ?? "",
  })).filter(({ name }) => /^(Set|Create|Delete)/.test(name));
}

/** Declares a test that starts with an empty list of calls. */
function setupTest(name: string, body: () => Promise<void>): void {
  driverTest(name, () => {
    Deno.writeTextFileSync(CALLS, "");
    return body();
  });
}

/** Opens a device and always closes it, so that it leaves nothing to other tests. */
async function opened(options: DeviceOptions, use: (device: Device) => void): Promise<void> {
  const device = await openDevice(options);
  try {
    use(device);
  } finally {
    device.close();
    await device.closed;
  }
}

/** Flags, servers and search list in the form of the stand-in. */
const dns = (text: string) => new TextEncoder().encode(text).toHex();
const call = (name: string, bytes: string, result = 0): Call => ({ name, result, bytes });

const V4 = "02000000 0a060707 00*20";
const V6 = "17000000 00000000 fd000000000000000000000000000001 00000000";
const NOWHERE_V4 = "02000000 00*24";
const NOWHERE_V6 = "17000000 00*24";

const OPTIONS: DeviceOptions = {
  address: ["10.6.7.7/24", "fd00::1/64"],
  route: ["10.1.0.0/16 metric 5", "default via 10.6.7.1 metric 9", "fd01:2::/32", "::/0 via fd00::2"],
  mtu: 1420,
  windows: { ringCapacity: MIN_RING, metric: 7, dns: ["10.6.7.53", "10.6.7.54", "fd00::53"] },
};

const MADE = (at: number): Call[] => [
  call("SetIpInterfaceEntry", INTERFACE(at, "0200", "00", "07000000", "8c050000")),
  call("SetIpInterfaceEntry", INTERFACE(at, "1700", "00", "07000000", "8c050000")),
  call("CreateUnicastIpAddressEntry", ADDRESS(at, `${V4} 00000000`, "18")),
  call("CreateUnicastIpAddressEntry", ADDRESS(at, `${V6} 00000000`, "40")),
  call("CreateIpForwardEntry2", ROUTE(at, "02000000 0a010000 00*20", "10", NOWHERE_V4, "05000000")),
  call("CreateIpForwardEntry2", ROUTE(at, NOWHERE_V4, "00", "02000000 0a060701 00*20", "09000000")),
  call(
    "CreateIpForwardEntry2",
    ROUTE(at, "17000000 00000000 fd010002 00*12 00000000", "20", NOWHERE_V6, "00000000"),
  ),
  call(
    "CreateIpForwardEntry2",
    ROUTE(at, NOWHERE_V6, "00", "17000000 00000000 fd00 00*13 02 00000000", "00000000"),
  ),
  call("SetInterfaceDnsSettings", dns("2|10.6.7.53,10.6.7.54|")),
  call("SetInterfaceDnsSettings", dns("3|fd00::53|")),
];

/** The undo of these calls: newest first, with the same rows. */
const UNDONE = (made: readonly Call[]): Call[] =>
  made.filter(({ name }) => name !== "SetIpInterfaceEntry").toReversed().map(({ name, bytes }) =>
    name === "SetInterfaceDnsSettings"
      ? call(name, bytes.startsWith(dns("2")) ? dns("2||") : dns("3||"))
      : call(name.replace("Create", "Delete"), bytes)
  );

/** Checks that nothing of a device is left. */
function assertBare(): void {
  const { addresses, routes, dns } = readNetwork(NETWORK);
  deepStrictEqual({ addresses, routes, dns }, { addresses: [], routes: [], dns: [] });
}

setupTest(
  "a device writes the rows of Windows byte by byte, and close() removes them in reverse order",
  async () => {
    const at = nextIndex();
    await opened({ name: "golden", ...OPTIONS }, () => {
      deepStrictEqual(changes(), MADE(at));
      const state = readNetwork(NETWORK);
      strictEqual(state.addresses.length, 2);
      strictEqual(state.routes.length, 4);
      ok(state.dns.every((row) => row.startsWith(adapterGuid("golden").toHex())), "settings go by the GUID");
    });
    deepStrictEqual(changes(), UNDONE(MADE(at)));
    assertBare();
  },
);

setupTest(
  "a device without options gets an MTU of 1500, and no DNS servers of a crashed process",
  async () => {
    const at = nextIndex();
    const left = wide("10.6.7.53");
    const guid = adapterGuid("bare");
    strictEqual(
      iphlpapi().SetInterfaceDnsSettings!(guid, dnsSettings(Family.Ipv4, BigInt(addressOf(left)))),
      0,
    );
    deepStrictEqual(changes(), [call("SetInterfaceDnsSettings", dns("2|10.6.7.53|"))]);
    strictEqual(readNetwork(NETWORK).dns.length, 1);
    await opened({ name: "bare", windows: { ringCapacity: MIN_RING } }, () => {
      deepStrictEqual(changes(), [
        call("SetIpInterfaceEntry", INTERFACE(at, "0200", "01", "05000000", "dc050000")),
        call("SetIpInterfaceEntry", INTERFACE(at, "1700", "01", "05000000", "dc050000")),
        call("SetInterfaceDnsSettings", dns("2||")),
        call("SetInterfaceDnsSettings", dns("3||")),
      ]);
      assertBare();
    });
    deepStrictEqual(changes(), []);
  },
);

setupTest(
  "a default route sets the interface metric to 0 for its IP version only; IPv6 gets an MTU of at least 1280",
  async () => {
    const at = nextIndex();
    const options = { address: "10.6.7.7/24", route: "0.0.0.0/0", mtu: 600 };
    await opened({ name: "default", windows: { ringCapacity: MIN_RING }, ...options }, () => {
      deepStrictEqual(changes().slice(0, 2), [
        call("SetIpInterfaceEntry", INTERFACE(at, "0200", "00", "00000000", "58020000")),
        call("SetIpInterfaceEntry", INTERFACE(at, "1700", "01", "05000000", "00050000")),
      ]);
    });
    strictEqual(changes().length, 2, "the route and the address");
    assertBare();
  },
);

setupTest("default means a default route for IPv4 and one for IPv6", async () => {
  const at = nextIndex();
  const options = { address: "10.6.7.7/24", route: "default" };
  await opened({ name: "default", windows: { ringCapacity: MIN_RING }, ...options }, () => {
    const said = changes();
    deepStrictEqual(said.slice(0, 2), [
      call("SetIpInterfaceEntry", INTERFACE(at, "0200", "00", "00000000", "dc050000")),
      call("SetIpInterfaceEntry", INTERFACE(at, "1700", "00", "00000000", "dc050000")),
    ]);
    strictEqual(said.filter(({ name }) => name === "CreateIpForwardEntry2").length, 2);
  });
  assertBare();
});

/** Error numbers with which a call is refused. */
const Refusal = { Denied: 5, NotSupported: 50, InvalidParameter: 87, Exists: 5010 } as const;

/** Opens a device with `OPTIONS` while a function fails. */
async function assertRefused(refused: string, error: number, expected: Error): Promise<void> {
  Deno.env.set("STAND_IN_REFUSE", `${refused}=${error}`);
  try {
    await rejects(openDevice({ name: "half", ...OPTIONS }), expected);
  } finally {
    Deno.env.delete("STAND_IN_REFUSE");
  }
}

/** Functions that may fail, the number of calls before them, and the failed action. */
const REFUSED = [
  ["GetIpInterfaceEntry", 0, 'set up IPv4 on "half"'],
  ["SetIpInterfaceEntry", 0, 'set up IPv4 on "half"'],
  ["CreateUnicastIpAddressEntry", 2, 'add address 10.6.7.7/24 to "half"'],
  ["CreateIpForwardEntry2", 4, 'add route 10.1.0.0/16 on "half"'],
  ["SetInterfaceDnsSettings", 8, 'set DNS servers 10.6.7.53,10.6.7.54 on "half"'],
] as const;

for (const [refused, made, attempt] of REFUSED) {
  setupTest(
    `a device whose ${refused} is denied names the missing right and undoes earlier changes`,
    async () => {
      const at = nextIndex();
      const before = countersOf(standIn);
      const remedy = 'run it in a terminal that was opened by "Run as administrator"';
      const message = `Cannot ${attempt}: ERROR_ACCESS_DENIED (5): ${remedy}`;
      await assertRefused(refused, Refusal.Denied, new Deno.errors.PermissionDenied(message));
      const expected = MADE(at).slice(0, made);
      const failed = refused.startsWith("Get") ? [] : [{ ...MADE(at)[made]!, result: Refusal.Denied }];
      deepStrictEqual(changes(), [...expected, ...failed, ...UNDONE(expected)]);
      strictEqual(countersSince(before).adaptersClosed, 1);
      assertBare();
    },
  );

  setupTest(`a device whose ${refused} fails otherwise reports the error of Windows alone`, async () => {
    const message = `Cannot ${attempt}: ERROR_INVALID_PARAMETER (87)`;
    const [operation, code] = [refused, "ERROR_INVALID_PARAMETER"];
    const expected = new DriverError(message, { operation, code, errno: Refusal.InvalidParameter });
    await assertRefused(refused, Refusal.InvalidParameter, expected);
    assertBare();
  });
}

setupTest("an address of another interface is reported as such", async () => {
  const message =
    'Cannot add address 10.6.7.7/24 to "half": ERROR_OBJECT_ALREADY_EXISTS (5010): another interface has it';
  const [operation, code] = ["CreateUnicastIpAddressEntry", "ERROR_OBJECT_ALREADY_EXISTS"];
  const expected = new DriverError(message, { operation, code, errno: Refusal.Exists });
  await assertRefused(operation, Refusal.Exists, expected);
  assertBare();
});

setupTest("an error of DNS servers that Windows cannot set names the first version that can", async () => {
  const message = 'Cannot set DNS servers 10.6.7.53,10.6.7.54 on "half": ERROR_NOT_SUPPORTED (50): ' +
    "this needs Windows 10 version 2004 or later";
  const expected = new Deno.errors.NotSupported(message);
  await assertRefused("SetInterfaceDnsSettings", Refusal.NotSupported, expected);
  assertBare();
});

setupTest("an existing adapter keeps its settings, and gets the rows of its interface back", async () => {
  const at = nextIndex();
  const theirs = standIn.WintunCreateAdapter(wide("theirs"), wide("Test"), null);
  try {
    await opened({ name: "theirs", ...OPTIONS }, () => deepStrictEqual(changes(), MADE(at)));
    const back = changes();
    deepStrictEqual(back.slice(0, -2), UNDONE(MADE(at)));
    // The row of the stand-in, except for the prefix length that it would not accept.
    const original = (family: string, discovery: string, duplicates: string) =>
      golden(
        family,
        "00*6",
        luidOf(at),
        indexOf(at),
        "00*24 01 00 01 01 00*4 |",
        discovery,
        "000000",
        duplicates,
        "000000 30750000 00*80 | 00000000 05000000 ffff0000 01 00 01 00*9",
      );
    deepStrictEqual(back.slice(-2), [
      call("SetIpInterfaceEntry", original("1700", "01", "01")),
      call("SetIpInterfaceEntry", original("0200", "02", "03")),
    ]);
    assertBare();
    const options = { name: "theirs", windows: { ringCapacity: MIN_RING } };
    await opened(options, ({ mtu }) => {
      strictEqual(mtu, DEFAULT_MTU, "without an MTU it keeps its own");
      deepStrictEqual(changes(), [
        call("SetIpInterfaceEntry", INTERFACE(at, "0200", "01", "05000000", "ffff0000")),
        call("SetIpInterfaceEntry", INTERFACE(at, "1700", "01", "05000000", "ffff0000")),
      ]);
    });
    const again = standIn.WintunOpenAdapter(wide("theirs"));
    ok(again !== null, "it is still there");
    standIn.WintunCloseAdapter(again);
  } finally {
    standIn.WintunCloseAdapter(theirs);
  }
});
