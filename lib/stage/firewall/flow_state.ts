/** The states of a firewall's flows: timeouts and eviction priorities. */

/** States of flows. Those of TCP are RFC 9293's, as observed between the two sides. */
export const FlowState = {
  /** Another protocol, in one direction only. */
  OtherUnreplied: 0,
  /** UDP and UDP-Lite, in one direction only. */
  UdpUnreplied: 1,
  /** ICMP queries without a reply. */
  IcmpUnreplied: 2,
  /** SYN without a reply. */
  SynSent: 3,
  /** SYN and SYN-ACK; the opener has not acknowledged yet. */
  SynReceived: 4,
  /** Closed by a reset. */
  Closed: 5,
  /** Closed by both sides, with both FINs acknowledged. */
  TimeWait: 6,
  /** Another protocol, in both directions. */
  OtherReplied: 7,
  /** UDP in both directions. */
  UdpReplied: 8,
  /** ICMP queries with replies. */
  IcmpReplied: 9,
  /** A reset in the window but not exact, which the receiver answers with a challenge ACK (RFC 5961 section 3.2). */
  Challenged: 10,
  /** UDP in both directions, more than 2 s after the first packet. */
  UdpStream: 11,
  /** TCP connection open on both sides. */
  Established: 12,
  /** One side has sent its FIN. */
  FinWait: 13,
  /** That FIN is acknowledged; the other side may still send. */
  CloseWait: 14,
  /** Both sides have sent their FINs. */
  LastAck: 15,
} as const;
/** One of {@linkcode FlowState}'s values. */
export type FlowState = typeof FlowState[keyof typeof FlowState];

/** Names of the states, by number. */
export const STATE_NAMES: readonly string[] = Object.keys(FlowState);

// Specification: Linux's defaults, Documentation/networking/nf_conntrack-sysctl.rst (ms)
const SECOND = 1000;
const DAY = 86_400 * SECOND;
/** Maximum idle time of a flow, by state (milliseconds). */
export const TIMEOUTS: readonly number[] = [
  600 * SECOND,
  30 * SECOND,
  30 * SECOND,
  120 * SECOND,
  60 * SECOND,
  10 * SECOND,
  120 * SECOND,
  600 * SECOND,
  30 * SECOND,
  30 * SECOND,
  300 * SECOND,
  120 * SECOND,
  5 * DAY,
  120 * SECOND,
  60 * SECOND,
  30 * SECOND,
];

// Implementation
/**
 * Eviction priorities by state, the lowest evicted first: 0 unanswered or closed, 1 answered, 2 open. Flows opened inbound have
 * one less until they are open, since anyone can open any number of them from forged addresses.
 */
export const PRIORITIES: { readonly outbound: readonly number[]; readonly inbound: readonly number[] } = {
  outbound: [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2],
  inbound: [-1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2],
};

/** Reports whether the opener of a flow in this state has no reply, or may not have received it. */
export function isUnanswered(state: FlowState): boolean {
  return state <= FlowState.SynReceived;
}
