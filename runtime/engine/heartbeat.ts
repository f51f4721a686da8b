/** What the loop tells the watchdog: that it goes on, and which stage it is in. */

/** Two numbers in shared memory, and the names behind the second. */
export class Heartbeat {
  /** `[0]`: grows while the loop goes on. `[1]`: the stage that runs, 0 for none. */
  readonly cells: Int32Array<SharedArrayBuffer> = new Int32Array(new SharedArrayBuffer(8));
  /** The stages' names, by number. */
  readonly names: string[] = ["code outside of its stages"];
  /** Which worker's it is, for messages: `" in worker 1"`, or nothing. */
  worker = "";
  /** Called when a name was added. */
  onName: (() => void) | undefined;

  readonly #free: number[] = [];

  /** A number for a stage, until it is given back. */
  name(stage: string): number {
    const number = this.#free.pop() ?? this.names.length;
    this.names[number] = `stage "${stage}"`;
    this.onName?.();
    return number;
  }

  /** Takes a number back. */
  forget(number: number): void {
    this.#free.push(number);
  }

  /** The name of the stage that runs, for messages. */
  get current(): string {
    return this.names[this.cells[1]!]!;
  }

  /** The loop goes on. */
  beat(): void {
    this.cells[0]!++;
  }
}
