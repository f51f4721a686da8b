/** The states of a firewall's flows: how long each may be idle, and which make room for others first. */

/** What is known of a flow. TCP's are RFC 9293's, as one sees them who stands between. */
export const FlowState = {
  /** Another protocol, seen in one direction alone. */
  OtherUnreplied: 0,
  /** UDP and UDP-Lite, in one direction alone. */
  UdpUnreplied: 1,
  /** ICMP requests without an answer. */
  IcmpUnreplied: 2,
  /** A SYN without an answer. */
  SynSent: 3,
  /** A SYN and its answer; the opener has not confirmed it. */
  SynReceived: 4,
  /** A reset has ended it. */
  Closed: 5,
  /** Both sides have ended it, and know it of each other. */
  TimeWait: 6,
  /** Another protocol, in both directions. */
  OtherReplied: 7,
  /** UDP that was answered. */
  UdpReplied: 8,
  /** ICMP requests with answers. */
  IcmpReplied: 9,
  /** A reset within the window, which its receiver may have taken or not (RFC 5961 section 3.2). */
  Doubted: 10,
  /** UDP that has gone on for more than 2 s after its beginning, in both directions. */
  UdpStream: 11,
  /** A TCP connection, open on both sides. */
  Established: 12,
  /** One side has sent its FIN. */
  FinWait: 13,
  /** That FIN is confirmed; the other side may go on sending. */
  CloseWait: 14,
  /** Both sides have sent their FINs. */
  LastAck: 15,
} as const;
/** One of {@linkcode FlowState}'s values. */
export type FlowState = typeof FlowState[keyof typeof FlowState];

/** The states' names, by their numbers. */
export const STATE_NAMES: readonly string[] = Object.keys(FlowState);

// Specification: Linux' defaults, Documentation/networking/nf_conntrack-sysctl.rst (ms)
const SECOND = 1000;
const DAY = 86_400 * SECOND;
/** How long a flow may be idle (milliseconds), by its state. */
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
 * Eviction priority by state, the lowest first: 0 unanswered or over, 1 answered, 2 surely open. What was opened inbound has
 * one less until it is open, since strangers can make any number of such flows from addresses that are not theirs.
 */
export const PRIORITIES: { readonly outbound: readonly number[]; readonly inbound: readonly number[] } = {
  outbound: [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2],
  inbound: [-1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2],
};

/**
 * Tells whether nobody has answered the opener of a flow in this state, or the opener has not shown that it got the
 * answer.
 */
export function isUnanswered(state: FlowState): boolean {
  return state <= FlowState.SynReceived;
}
