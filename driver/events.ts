/** Delivery of device events to their readers. */

import type { DeviceEvent } from "../lib/core/mod.ts";

// Implementation
/** Maximum events that wait for a slow reader; the oldest is dropped first. */
const MAX_WAITING = 64;

/** Events of one reader, in order. */
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
    if (this.#waiting.push(event) > MAX_WAITING) this.#waiting.shift();
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

/** Delivers a device's events to all readers; used by the drivers. */
export class DeviceEvents {
  readonly #readers = new Set<EventQueue>();
  #ended = false;

  /** Returns the events from now on. */
  listen(): AsyncIterable<DeviceEvent> {
    const reader = new EventQueue(this.#readers);
    if (this.#ended) reader.end();
    return reader;
  }

  /** Delivers an event to every reader. */
  publish(event: DeviceEvent): void {
    for (const reader of this.#readers) reader.push(event);
  }

  /** Ends the iteration of every reader after its waiting events. */
  end(): void {
    this.#ended = true;
    for (const reader of this.#readers) reader.end();
  }
}
