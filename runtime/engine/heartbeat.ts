/** The loop's signs of life, which the watchdog reads from its own thread. */

/** Two numbers in shared memory, and the names of the stages that the second one counts. */
export class Heartbeat {
  /** `[0]`: a counter that grows while the loop runs. `[1]`: the number of the running stage, 0 for none. */
  readonly cells: Int32Array<SharedArrayBuffer> = new Int32Array(new SharedArrayBuffer(8));
  /** Names of stages, by number. */
  readonly names: string[] = ["code outside of its stages"];
  /** The worker, for messages: `" in worker 1"`; empty in a script that runs once. */
  worker = "";
  /** Called after a name was added. */
  onName: (() => void) | undefined;

  readonly #free: number[] = [];

  /** Returns a number for a stage, valid until {@linkcode Heartbeat.forget}. */
  name(stage: string): number {
    const number = this.#free.pop() ?? this.names.length;
    this.names[number] = `stage "${stage}"`;
    this.onName?.();
    return number;
  }

  /** Frees the number of a stage. */
  forget(number: number): void {
    this.#free.push(number);
  }

  /** Name of the running stage, for messages. */
  get current(): string {
    return this.names[this.cells[1]!]!;
  }

  /** Shows that the loop runs. */
  beat(): void {
    this.cells[0]!++;
  }
}
