/** Limits of flow tables. */

// Implementation
/** Maximum number of flows of a table. */
export const MAX_CAPACITY = 2 ** 24;
/** Maximum number of flows that one `FlowTable.expire` removes: the work of 64 packets. */
export const MAX_EXPIRED = 1024;
