/** The links of this process's open devices, by their numbers: no way beside a tunnel leads through one. */
export const ownLinks: Set<number> = new Set();
