/** Error output of commands. */

import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";
import { mock } from "node:test";
import { DriverError } from "../../../driver/mod.ts";
import { parseRoute } from "../../../driver/options.ts";
import { ExitCode, nearest, report, UsageError } from "../../../runtime/script/failure.ts";
import { explain, ownCode } from "../../../runtime/tunnel/explain.ts";

function thrown(act: () => unknown): Error {
  try {
    act();
  } catch (error) {
    return error as Error;
  }
  throw new Error("nothing was thrown");
}

/** As if Warren's own code had thrown it. */
function ours(error: Error): Error {
  const place = new URL("../../../driver/mod.ts", import.meta.url);
  error.stack = `${error.name}: ${error.message}\n    at openDevice (${place}:1:1)`;
  return error;
}

Deno.test("explain() gives an expected failure without a stack", () => {
  const message = 'Cannot open "/dev/net/tun": EPERM (1): run as root';
  assert.equal(
    explain(ours(new DriverError(message, { operation: "open", code: "EPERM", errno: 1 }))),
    message,
  );
});

Deno.test("ownCode() knows a checkout whose path has spaces as Deno's stacks have it", async () => {
  const folder = await Deno.makeTempDir({ prefix: "a b#ü " });
  try {
    await Deno.writeTextFile(`${folder}/x.ts`, 'throw new Error("here");');
    const { stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", `${folder}/x.ts`],
      env: { NO_COLOR: "1" },
    })
      .output();
    const frame = new TextDecoder().decode(stderr).split("\n").find((line) => line.startsWith("    at "))!;
    assert.ok(ownCode(pathToFileURL(`${folder}/`)).some((start) => frame.includes(start)), frame);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("explain() shows where the script is in the stack of an expected failure", () => {
  const lines = explain(thrown(() => parseRoute("10.0.0.0/8 via"))).split("\n");
  assert.equal(lines[0], 'Cannot parse route "10.0.0.0/8 via": "via" has no value');
  assert.match(lines[1]!, /^ {4}at .*failure_test\.ts:\d+/);
  assert.ok(lines.every((line) => !line.includes("/driver/")));
});

Deno.test("explain() gives what the script's code threw with its stack", () => {
  const text = explain(thrown(() => (undefined as unknown as { a: { b: number } }).a.b));
  assert.match(
    text,
    /^TypeError: Cannot read properties of undefined \(reading 'a'\)\n {4}at .*failure_test\.ts/,
  );
  assert.match(explain(new Error("Cannot say")), /^Error: Cannot say\n {4}at .*failure_test\.ts/);
});

Deno.test("explain() shows the script's place in what a stage threw", () => {
  const cause = thrown(() => (null as unknown as { x(): void }).x());
  const text = explain(ours(new Error('Cannot go on with "tun0": stage "nat" threw: it', { cause })));
  assert.match(text, /^Cannot go on with "tun0": stage "nat" threw: it\n {4}at .*failure_test\.ts/);
});

Deno.test("explain() shows the stack of a defect of ours", () => {
  const cause = ours(new TypeError("x is not a function"));
  const text = explain(ours(new Error('Cannot go on with "tun0": stage "nat" threw: x', { cause })));
  assert.match(text, /threw: x\n {4}at openDevice/);
});

Deno.test("explain() says once what closing said again, and everything else that failed", () => {
  const [first, second] = [ours(new Error("Cannot a")), ours(new Error("Cannot b"))];
  assert.equal(explain(new SuppressedError(first, first)), "Cannot a");
  assert.equal(explain(new AggregateError([first, second])), "Cannot a\nCannot b");
  assert.match(explain("text"), /threw "text"/);
});

Deno.test("report() prints a hint and returns 2 for a UsageError, and 1 for others", () => {
  const printed = mock.method(console, "error", () => {});
  try {
    assert.equal(report(new UsageError("--x is no flag"), "warren run a.ts"), ExitCode.WrongCommandLine);
    assert.equal(report(ours(new Error("Cannot a")), "warren"), ExitCode.Failed);
    assert.deepEqual(printed.mock.calls.map(({ arguments: [text] }) => text), [
      "warren: --x is no flag\nTry: warren run a.ts --help",
      "warren: Cannot a",
    ]);
  } finally {
    printed.mock.restore();
  }
});

Deno.test("report() prints no control characters to a terminal", () => {
  const said = mock.method(console, "error", () => {});
  try {
    report(new UsageError('"a\x1b[2J\x07\r\u009bb\n" is no flag'), "warren");
    report(ours(new Error("Cannot a: \x1b]0;title\x07\x08")), "warren");
    assert.deepEqual(said.mock.calls.map((call) => (call.arguments as unknown[])[0]), [
      'warren: "a\\u000d\\u009bb\n" is no flag\nTry: warren --help',
      "warren: Cannot a: \\u0008",
    ]);
  } finally {
    said.mock.restore();
  }
});

Deno.test("nearest() finds a word two letters away or begun, and no other", () => {
  const words = ["run", "new", "doctor", "queue-length"];
  assert.equal(nearest("docter", words), "doctor");
  assert.equal(nearest("dcotor", words), "doctor");
  assert.equal(nearest("queue", words), "queue-length");
  assert.equal(nearest("rnu", words), "run");
  for (const word of ["", "xyz", "zzzzzzzzzz"]) assert.equal(nearest(word, words), undefined, word);
});
