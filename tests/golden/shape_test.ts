/** Packets through a shaper, as text: sent at once, delayed or dropped. */

import { Fifo, type FifoOptions, FqCodel, type FqCodelOptions, Shaper } from "@warren/tunnel/shape";
import { goldenTests } from "../kit/golden.ts";

/** One direction, as JSON. */
interface Shape {
  rateBitsPerSecond: number;
  burst?: number;
  police?: boolean;
  fifo?: FifoOptions;
  fqCodel?: FqCodelOptions;
}

function options({ fifo, fqCodel, ...rest }: Shape) {
  if (fifo !== undefined) return { ...rest, queue: new Fifo(fifo) };
  return fqCodel === undefined ? rest : { ...rest, queue: new FqCodel(fqCodel) };
}

goldenTests<{ outbound?: Shape; inbound?: Shape }>(
  new URL("shape.txt", import.meta.url),
  ({ outbound, inbound }) => [
    new Shaper({
      ...outbound && { outbound: options(outbound) },
      ...inbound && { inbound: options(inbound) },
    }),
  ],
);
