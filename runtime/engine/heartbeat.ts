/** Signs of life of the loop, which the watchdog reads from its own thread. */

/** A counter that shows that the loop runs, and the number of the running stage, in shared memory. */
export class Heartbeat {
  /** `[0]`: counter, which grows while the loop runs. `[1]`: number of the running stage; 0 for other code. */
  readonly cells: Int32Array<SharedArrayBuffer> = new Int32Array(new SharedArrayBuffer(8));
  /** Names for messages, by stage number. */
  readonly names: string[] = ["code outside of its stages"];
  /** Worker for messages, such as `" in worker 1"`; empty in a script with a single worker. */
  worker = "";
  /** Called after a name has been added. */
  onName: (() => void) | undefined;

  readonly #free: number[] = [];

  /** Assigns a number to a stage, until {@linkcode Heartbeat.forget}. */
  name(stage: string): number {
    const number = this.#free.pop() ?? this.names.length;
    this.names[number] = `stage "${stage}"`;
    this.onName?.();
    return number;
  }

  /** Frees the number of a stage for another one. */
  forget(number: number): void {
    this.#free.push(number);
  }

  /** Name of the running stage, for messages. */
  get current(): string {
    return this.names[this.cells[1]!]!;
  }

  /** Increments the counter. */
  beat(): void {
    this.cells[0]!++;
  }
}
