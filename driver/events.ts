/** Delivers a device's events to any number of readers. */

import type { DeviceEvent } from "../lib/core/mod.ts";

// Implementation
/** Maximum number of events that wait for a slow reader; beyond it, the oldest is dropped. */
const MAX_WAITING = 64;

/** Events that wait for one reader. */
class EventQueue implements AsyncIterable<DeviceEvent> {
  readonly #readers: Set<EventQueue>;
  readonly #waiting: DeviceEvent[] = [];
  /** Wakes the reader. */
  #wake: (() => void) | undefined;
  #ended = false;

  constructor(readers: Set<EventQueue>) {
    this.#readers = readers;
    readers.add(this);
  }

  push(event: DeviceEvent): void {
    if (this.#waiting.push(event) > MAX_WAITING) this.#waiting.shift();
    this.#wake?.();
  }

  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<DeviceEvent, void, void> {
    try {
      for (;;) {
        const event = this.#waiting.shift();
        if (event !== undefined) yield event;
        else if (this.#ended) return;
        else await new Promise<void>((resolve) => void (this.#wake = resolve));
      }
    } finally {
      this.#readers.delete(this);
    }
  }
}

/** Events of one device. */
export class DeviceEvents {
  readonly #readers = new Set<EventQueue>();
  #ended = false;

  /** Adds a reader, which gets all later events. */
  listen(): AsyncIterable<DeviceEvent> {
    const reader = new EventQueue(this.#readers);
    if (this.#ended) reader.end();
    return reader;
  }

  /** Delivers an event to every reader. */
  publish(event: DeviceEvent): void {
    for (const reader of this.#readers) reader.push(event);
  }

  /** Ends the iteration of each reader when it has read its events. */
  end(): void {
    this.#ended = true;
    for (const reader of this.#readers) reader.end();
  }
}
