/** The Windows driver in deno.exe under Wine: conformance, faults, and the official DLL. */

import { deepStrictEqual, match, ok, strictEqual } from "node:assert/strict";
import { zipSync } from "fflate";
import { WINTUN_VERSION } from "../../../driver/windows/builds.ts";
import { until } from "../../kit/host.ts";
import { openNamespace } from "../../kit/system.ts";
import { npmPackage, openWine, windowsPath, wineTest } from "../../kit/wine.ts";
import { openWindowsLab } from "./lab.ts";
import { StandInReport } from "./stand_in.ts";

/** Files of checks over the stand-ins, each run in a separate process, with their number of tests. */
const CHECKS = [
  { file: "conformance_checks.ts", tests: 16, shows: "it conforms to the rules of an end" },
  {
    file: "setup_checks.ts",
    tests: 17,
    shows: "it calls IP Helper with the right bytes, and undoes its changes",
  },
  {
    file: "opening_checks.ts",
    tests: 11,
    shows: "it reports why a device cannot be opened, and leaves nothing",
  },
  { file: "library_checks.ts", tests: 9, shows: "it loads only the intended library" },
  { file: "fault_checks.ts", tests: 17, shows: "it survives faults while packets move" },
  { file: "fuzz_checks.ts", tests: 2, shows: "it survives random operations of the system" },
] as const;

/** Ports of the adapters, in the namespace of the test: to a partner, or back to itself. */
const LINKS = [
  "near0=47201:47202",
  "far0=47202:47201",
  "near1=47203:47204",
  "far1=47204:47203",
  "loop0=47205:47205",
  "loop1=47206:47206",
].join(",");

/** A package with the official builds of Wintun, unmodified. */
const OFFICIAL = { name: "appium-ios-tuntap", version: "2.0.5", folder: "vendor/wintun" } as const;

/** Packets that have passed when a process is killed. */
const AT_WORK = 500;

async function official(): Promise<string> {
  return `${await npmPackage(OFFICIAL.name, OFFICIAL.version)}/${OFFICIAL.folder}`;
}

wineTest("the Windows driver over the stand-ins", async (context) => {
  await using namespace = await openNamespace();
  await using wine = await openWine({ namespace });
  const env = {
    STAND_IN_LINKS: LINKS,
    STAND_IN_CALLS: windowsPath(`${wine.folder}/calls`),
    STAND_IN_NETWORK: windowsPath(`${wine.folder}/network`),
    OFFICIAL_WINTUN: windowsPath(`${await official()}/bin`),
  };
  for (const { file, tests, shows } of CHECKS) {
    await context.step(shows, () => wine.tests(`tests/system/windows/${file}`, tests, { env }));
  }
});

wineTest(
  "the official wintun.dll: warren driver install puts it where the driver finds it",
  async () => {
    await using wine = await openWine();
    const folder = await official();
    const zip = `${wine.folder}/wintun.zip`;
    await Deno.writeFile(
      zip,
      zipSync({
        "wintun/bin/amd64/wintun.dll": await Deno.readFile(`${folder}/bin/amd64/wintun.dll`),
        "wintun/LICENSE.txt": await Deno.readFile(`${folder}/LICENSE.txt`),
      }),
    );
    const main = ["run", "-A", "--no-check", "runtime/cli/main.ts"];
    const { stdout } = await wine.deno([...main, "driver", "install", "--from", windowsPath(zip)]);
    match(stdout, new RegExp(`^Installed Wintun ${WINTUN_VERSION}: C:.*wintun\\.dll`));
    const env = { WARREN_WINTUN: "", WARREN_WINTUN_SHA256: "" };
    await wine.tests("tests/system/windows/official_checks.ts", 3, { env });
  },
);

wineTest("a script killed while packets pass does not hinder the next one", async () => {
  await using lab = await openWindowsLab();
  await lab.join("*", lab.namespace, ["10.9.0.2/24", "fd09::2/64"]);
  const flood = lab.namespace.spawn("ping", ["-f", "-q", "10.9.0.77"], { stdout: "null", stderr: "null" });
  for (const round of [1, 2, 3]) {
    const report = new StandInReport(`${lab.wine.folder}/report-${round}`);
    const env = { STAND_IN_REPORT: windowsPath(`${lab.wine.folder}/report-${round}`) };
    const script = await lab.start("icmp_echo.ts", [], { env });
    await until(() => report.counters.taken > AT_WORK, "packets pass");
    const { addresses, routes } = lab.network;
    deepStrictEqual([addresses.length, routes.length], [2, 0], "the last script left nothing");
    if (round < 3) {
      script.kill();
      ok(await script.ended !== 0);
      const { sessionsStarted, sessionsEnded, adaptersClosed } = report.counters;
      deepStrictEqual(
        [sessionsStarted, sessionsEnded, adaptersClosed],
        [1, 0, 0],
        "it undid nothing itself",
      );
    } else {
      strictEqual(await script.interrupt(), 0, script.output);
      const { sessionsEnded, handlesOpen, misuses, unsentAtEnd, releases, delivered } = report.counters;
      deepStrictEqual([sessionsEnded, handlesOpen, misuses, unsentAtEnd], [1, 0, 0, 0]);
      strictEqual(releases, delivered);
    }
  }
  const { addresses, routes, dns } = lab.network;
  deepStrictEqual({ addresses, routes, dns }, { addresses: [], routes: [], dns: [] });
  flood.kill("SIGKILL");
  await flood.status;
}, ["ping"]);
