/** Flows of a NAPT on one worker: a table for each protocol. */

import { drop } from "../../core/drop.ts";
import { Direction, type Packet, type StageContext, type WorkerPlace } from "../../core/mod.ts";
import { MAX_EXPIRED } from "../../table/flow_limits.ts";
import { handOverToOwner, ownsPort, type PortFlows } from "../../table/worker_ports.ts";
import { Protocol } from "../../wire/protocol.ts";
import { NaptDrop } from "./_napt_drop.ts";
import type { CheckedNaptOptions, Forward } from "./_napt_options.ts";
import { type SavedState, stateOf } from "./_napt_state.ts";
import { Hosts, NaptTable } from "./_napt_table.ts";

export class NaptFlows implements PortFlows<SavedState> {
  /** Outside addresses in ascending order. */
  readonly outside: Uint32Array;
  /** Inside endpoint that {@linkcode NaptFlows.findInside} found, and the rule that forwards to it. */
  inside = 0;
  insidePort = 0;
  forward: Forward | undefined = undefined;
  readonly #tcp: NaptTable;
  readonly #udp: NaptTable;
  readonly #icmp: NaptTable;
  readonly #worker: WorkerPlace;

  constructor(options: CheckedNaptOptions, worker: WorkerPlace) {
    const hosts = new Hosts(options);
    this.outside = options.outside;
    this.#worker = worker;
    this.#tcp = new NaptTable(Protocol.Tcp, options, hosts, worker);
    this.#udp = new NaptTable(Protocol.Udp, options, hosts, worker);
    this.#icmp = new NaptTable(Protocol.Icmp, options, hosts, worker);
  }

  get size(): number {
    return this.#tcp.sessions.size + this.#udp.sessions.size + this.#icmp.sessions.size;
  }

  /** Inside endpoints that have an outside port now, without those of forwarded ports. */
  get mappings(): number {
    return this.#tcp.mappings + this.#udp.mappings + this.#icmp.mappings;
  }

  /** Table of a protocol; `undefined` for a protocol that is not translated. */
  of(protocol: number): NaptTable | undefined {
    switch (protocol) {
      case Protocol.Tcp:
        return this.#tcp;
      case Protocol.Udp:
        return this.#udp;
      case Protocol.Icmp:
        return this.#icmp;
      default:
        return undefined;
    }
  }

  /** Finds the inside endpoint of an outside port; `false` when the packet was dropped or handed over. */
  findInside(
    packet: Packet,
    table: NaptTable,
    address: number,
    port: number,
    context: StageContext,
  ): boolean {
    const entry = table.entry(address, port);
    const forward = this.forward = entry < 0 ? table.forward(entry) : undefined;
    this.insidePort = forward === undefined
      ? entry === 0 ? port : table.insidePort[entry - 1]!
      : forward.insidePort + port - forward.firstPort;
    if (handOverToOwner(packet, this.insidePort, Direction.Inbound, context)) return false;
    if (entry === 0) return drop(packet, NaptDrop.NoMapping, context);
    this.inside = forward === undefined ? table.insideAddress[entry - 1]! : forward.inside;
    return true;
  }

  expire(now: number): boolean {
    const tcp = this.#tcp.sessions.expire(now);
    const udp = this.#udp.sessions.expire(now);
    const icmp = this.#icmp.sessions.expire(now);
    return tcp === MAX_EXPIRED || udp === MAX_EXPIRED || icmp === MAX_EXPIRED;
  }

  save(now: number): SavedState {
    const flows = (table: NaptTable) => Array.from(table.save(this.outside, now));
    return stateOf(flows(this.#tcp), flows(this.#udp), flows(this.#icmp));
  }

  restore({ tcp, udp, icmp }: SavedState, now: number): void {
    for (const [table, flows] of [[this.#tcp, tcp], [this.#udp, udp], [this.#icmp, icmp]] as const) {
      for (const flow of flows) {
        const address = this.outside.indexOf(flow[4]);
        if (address >= 0 && ownsPort(flow[1], this.#worker)) table.restore(flow, address, now);
      }
    }
  }
}
