/** What happens to a device, for whoever asked to hear of it. */

import type { DeviceEvent } from "../lib/core/mod.ts";

// Implementation
/** Events that wait for a slow reader; older ones give way. */
const WAITING = 64;

/** One reader's events, in their order. */
class EventQueue implements AsyncIterable<DeviceEvent> {
  readonly #waiting: DeviceEvent[] = [];
  #wanted: (() => void) | undefined;
  #ended = false;

  push(event: DeviceEvent): void {
    if (this.#waiting.push(event) > WAITING) this.#waiting.shift();
    this.#wanted?.();
  }

  end(): void {
    this.#ended = true;
    this.#wanted?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<DeviceEvent, void, void> {
    for (;;) {
      const event = this.#waiting.shift();
      if (event !== undefined) yield event;
      else if (this.#ended) return;
      else await new Promise<void>((resolve) => void (this.#wanted = resolve));
    }
  }
}

/** Hands a device's events to its readers. For drivers. */
export class DeviceEvents {
  readonly #readers = new Set<EventQueue>();
  #ended = false;

  /** Events from now on. */
  listen(): AsyncIterable<DeviceEvent> {
    const reader = new EventQueue();
    if (this.#ended) reader.end();
    this.#readers.add(reader);
    return reader;
  }

  /** Tells every reader. */
  publish(event: DeviceEvent): void {
    for (const reader of this.#readers) reader.push(event);
  }

  /** Nothing more will happen. */
  end(): void {
    this.#ended = true;
    for (const reader of this.#readers) reader.end();
  }
}
