/** The Internet checksum: the sum of RFC 1071, its update of RFC 1624. */

/** Finishes the sum that starts at `start` and is stored at `start + offset`, where its pseudo-header part is. */
export function finishChecksum(_bytes: Uint8Array, _start: number, _offset: number): void {
}
