/** Indexes of this process's open devices: a path around a tunnel never leads through one of them. */
export const ownLinks: Set<number> = new Set();
