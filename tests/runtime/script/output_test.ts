/** Output streams to readers that keep up, stall or fail. */

import assert from "node:assert/strict";
import { mock } from "node:test";
import { OutputStream } from "../../../runtime/script/output.ts";

/** More than a reader may take before it counts as stalled (milliseconds). */
const STALLED = 150;
/** More than the end of a process waits (milliseconds). */
const END = 600;

/** A file whose reader stops and goes on. */
class Reader {
  text = "";
  writes = 0;
  #stopped: PromiseWithResolvers<void> | undefined;

  stop(): void {
    this.#stopped = Promise.withResolvers();
  }

  goOn(): void {
    this.#stopped?.resolve();
    this.#stopped = undefined;
  }

  async write(bytes: Uint8Array): Promise<number> {
    const { promise } = this.#stopped ?? {};
    this.writes++;
    await promise;
    return this.#append(bytes);
  }

  writeSync(bytes: Uint8Array): number {
    assert.equal(this.#stopped, undefined, "a write that blocks");
    return this.#append(bytes);
  }

  #append(bytes: Uint8Array): number {
    // Files take what they like.
    const taken = bytes.subarray(0, 1000);
    this.text += new TextDecoder().decode(taken);
    return taken.length;
  }
}

/** Runs a test with timers that go by `tick` alone. */
async function withTimers(
  test: (tick: (milliseconds: number) => Promise<void>) => Promise<void>,
): Promise<void> {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    await test(async (milliseconds) => {
      mock.timers.tick(milliseconds);
      for (let i = 0; i < 20; i++) await Promise.resolve();
    });
  } finally {
    mock.timers.reset();
  }
}

function line(i: number): string {
  return `line ${i}\n`;
}

function lines(first: number, end: number): string {
  return Array.from({ length: end - first }, (_, i) => line(first + i)).join("");
}

Deno.test("OutputStream writes everything to a reader that keeps up, in order and in few writes", async () => {
  const reader = new Reader();
  const stream = new OutputStream(reader);
  for (let i = 0; i < 100; i++) stream.write(line(i));
  await stream.flush();
  assert.equal(reader.text, lines(0, 100));
  assert.ok(reader.writes < 5, `${reader.writes} writes`);
});

Deno.test("OutputStream keeps every line of a burst that fills its queue before the reader had a chance", async () => {
  const reader = new Reader();
  const stream = new OutputStream(reader, 1000);
  for (let i = 0; i < 5000; i++) stream.write(line(i));
  await stream.flush();
  // The first write was under way, and the others of a real file wait for it.
  assert.deepEqual(reader.text.split("\n").sort(), lines(0, 5000).split("\n").sort());
  assert.doesNotMatch(reader.text, /lines dropped/);
});

Deno.test("OutputStream drops and counts the oldest lines while its reader has stalled, and continues", () =>
  withTimers(async (tick) => {
    const reader = new Reader();
    const stream = new OutputStream(reader, 1000);
    reader.stop();
    stream.write("first\n");
    await tick(STALLED);
    for (let i = 0; i < 100_000; i++) stream.write(line(i));
    reader.goOn();
    await tick(0);
    const [, count] = /^first\nwarren: (\d+) lines dropped: the output was not read in time\n/.exec(
      reader.text,
    )!;
    assert.ok(Number(count) > 99_000 && Number(count) < 100_000);
    assert.ok(
      reader.text.endsWith(`dropped: the output was not read in time\n${lines(Number(count), 100_000)}`),
    );
    stream.write("last\n");
    await tick(0);
    assert.ok(reader.text.endsWith(`${line(99_999)}last\n`));
  }));

Deno.test("OutputStream does not take its reader for stalled when its own thread was busy", () =>
  withTimers((tick) => {
    const reader = new Reader();
    const stream = new OutputStream(reader);
    stream.write("first\n");
    stream.write("last words\n");
    // Longer than a write may take, and it has not been heard that the first one has ended.
    mock.timers.tick(110);
    assert.equal(stream.isStalled, false);
    stream.expectEnd();
    assert.match(reader.text, /last words/);
    return tick(0);
  }));

Deno.test("OutputStream drops a text longer than its queue while its reader has stalled", () =>
  withTimers(async (tick) => {
    const reader = new Reader();
    const stream = new OutputStream(reader, 1000);
    reader.stop();
    stream.write("first\n");
    await tick(STALLED);
    stream.write(`${"x".repeat(10_000)}\ny\n`);
    reader.goOn();
    await tick(0);
    stream.write("last\n");
    await tick(0);
    assert.equal(reader.text, "first\nwarren: 2 lines dropped: the output was not read in time\nlast\n");
  }));

Deno.test("OutputStream.show() replaces a status that a stalled reader has not read", () =>
  withTimers(async (tick) => {
    const reader = new Reader();
    const stream = new OutputStream(reader);
    reader.stop();
    stream.show("1 ");
    await tick(STALLED);
    for (let i = 2; i < 1000; i++) stream.show(`${i} `);
    reader.goOn();
    await tick(0);
    assert.equal(reader.text, "1 999 ");
  }));

Deno.test("OutputStream.flush() waits for a reader that is slow, for three seconds at most", () =>
  withTimers(async (tick) => {
    const slices: PromiseWithResolvers<number>[] = [];
    const stream = new OutputStream({
      write: () => {
        slices.push(Promise.withResolvers<number>());
        return slices.at(-1)!.promise;
      },
      writeSync: (bytes) => bytes.length,
    });
    stream.write("x".repeat(10_000));
    let hasFlushed = false;
    const flushed = stream.flush().then(() => hasFlushed = true);
    for (let i = 0; i < 5; i++) {
      slices.at(-1)!.resolve(100);
      await tick(550);
      assert.equal(hasFlushed, false, `${i}`);
    }
    slices.at(-1)!.resolve(100);
    await tick(550);
    await flushed;
  }));

Deno.test("OutputStream.flush() waits for half a second at most, and flushSync() not for a stalled reader", () =>
  withTimers(async (tick) => {
    const reader = new Reader();
    const stream = new OutputStream(reader);
    reader.stop();
    stream.write("first\n");
    let hasFlushed = false;
    const flushed = stream.flush().then(() => hasFlushed = true);
    await tick(STALLED);
    assert.equal(hasFlushed, false);
    await tick(END);
    await flushed;
    stream.write("second\n");
    stream.flushSync();
    assert.equal(reader.text, "");
  }));

Deno.test("OutputStream.flushSync() writes the queue", () => {
  const reader = new Reader();
  const stream = new OutputStream(reader);
  reader.stop();
  stream.write("under way\n");
  reader.goOn();
  stream.write("waits\n");
  stream.flushSync();
  assert.equal(reader.text, "waits\n");
});

Deno.test("OutputStream passes over the errors of its file, and writes again when it can", async () => {
  const reader = new Reader();
  let error: Error | undefined;
  const stream = new OutputStream({
    write: (bytes) => error === undefined ? reader.write(bytes) : Promise.reject(error),
    writeSync: (bytes) => {
      if (error !== undefined) throw error;
      return reader.writeSync(bytes);
    },
  });
  for (
    error of [
      new Deno.errors.BrokenPipe(),
      new Error("No space left on device"),
      new Deno.errors.BadResource(),
    ]
  ) {
    stream.write("lost\n");
    await stream.flush();
    stream.write("lost\n");
    stream.flushSync();
    await stream.flush();
  }
  error = undefined;
  stream.write("here\n");
  await stream.flush();
  assert.equal(reader.text, "here\n");
});

Deno.test("OutputStream retries writes that would block on a non-blocking descriptor", () =>
  withTimers(async (tick) => {
    const reader = new Reader();
    let isFull = true;
    const stream = new OutputStream({
      write: (bytes) => isFull ? Promise.reject(new Deno.errors.WouldBlock()) : reader.write(bytes),
      writeSync: (bytes) => reader.writeSync(bytes),
    });
    stream.write("here\n");
    for (let i = 0; i < 10; i++) await tick(50);
    assert.equal(reader.text, "");
    isFull = false;
    await tick(50);
    assert.equal(reader.text, "here\n");
  }));
