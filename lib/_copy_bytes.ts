/** Copying a packet's bytes. */

/** Copies without a view of the source, which would be allocated: words, and the bytes behind them. */
export function copyBytes(from: DataView, start: number, length: number, to: DataView, at: number): void {
  let i = 0;
  for (; i + 4 <= length; i += 4) to.setUint32(at + i, from.getUint32(start + i));
  for (; i < length; i++) to.setUint8(at + i, from.getUint8(start + i));
}
