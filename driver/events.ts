/** What happens to a device, for whoever asked to hear of it. */

import type { DeviceEvent } from "../lib/core/mod.ts";

// Implementation
/** Events that wait for a slow reader; older ones give way. */
const WAITING = 64;

/** One reader's events, in their order. */
class EventQueue implements AsyncIterable<DeviceEvent> {
  readonly #readers: Set<EventQueue>;
  readonly #waiting: DeviceEvent[] = [];
  #wanted: (() => void) | undefined;
  #ended = false;

  constructor(readers: Set<EventQueue>) {
    this.#readers = readers;
    readers.add(this);
  }

  push(event: DeviceEvent): void {
    if (this.#waiting.push(event) > WAITING) this.#waiting.shift();
    this.#wanted?.();
  }

  end(): void {
    this.#ended = true;
    this.#wanted?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<DeviceEvent, void, void> {
    try {
      for (;;) {
        const event = this.#waiting.shift();
        if (event !== undefined) yield event;
        else if (this.#ended) return;
        else await new Promise<void>((resolve) => void (this.#wanted = resolve));
      }
    } finally {
      this.#readers.delete(this);
    }
  }
}

/** Hands a device's events to its readers. For drivers. */
export class DeviceEvents {
  readonly #readers = new Set<EventQueue>();
  #ended = false;

  /** Events from now on. */
  listen(): AsyncIterable<DeviceEvent> {
    const reader = new EventQueue(this.#readers);
    if (this.#ended) reader.end();
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
