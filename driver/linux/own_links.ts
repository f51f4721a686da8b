/** Link indexes of the devices that this process has open: no path that bypasses a tunnel may lead through them. */
export const ownLinks: Set<number> = new Set();
