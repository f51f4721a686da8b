/** A UDP transport whose peer's name has several addresses: their bypasses. */

import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { Endpoint, type UdpSocket } from "../../../driver/mod.ts";
import { type Address, formatAddress } from "../../../lib/wire/address.ts";
import { UdpTransport } from "../../../runtime/transport/udp_transport.ts";

/** A socket that sends nothing. */
class SilentSocket implements UdpSocket {
  waitable: number | undefined = 1;
  readonly family = 4;
  readonly localAddresses = false;
  readonly local = new Uint8Array(Endpoint.Size);
  readonly closed = Promise.resolve();
  readonly failure = undefined;
  readonly refusal = undefined;

  attach(): void {
  }

  endpoint({ bytes }: Address, port: number): Uint8Array<ArrayBuffer> {
    const endpoint = new Uint8Array(Endpoint.Size);
    endpoint.set([port >> 8, port & 0xff], Endpoint.Port);
    endpoint.set(bytes, Endpoint.Ipv4Address);
    return endpoint;
  }

  receive(): number {
    return 0;
  }

  send(): number {
    return 0;
  }

  close(): void {
    this.waitable = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

const peers = (...hosts: number[]) =>
  hosts.map((host) => ({ host: `192.0.2.${host}`, port: 4500, family: 4 }) as const);

/** A transport whose checks and look-ups the test drives. */
function transport(...hosts: number[]) {
  const socket = new SilentSocket();
  const bypassed: string[] = [];
  const found = Promise.withResolvers<ReturnType<typeof peers>>();
  const { setInterval } = globalThis;
  let check = () => {};
  Object.assign(globalThis, { setInterval: (callback: () => void) => (check = callback, 0) });
  const end = new UdpTransport(socket, {
    peer: peers(...hosts),
    bypass: (address) => bypassed.push(formatAddress(address)),
    lookUp: () => found.promise,
  });
  Object.assign(globalThis, { setInterval });
  const endpoint = (host: number) =>
    socket.endpoint({ family: 4, bytes: Uint8Array.of(192, 0, 2, host) }, 4500);
  return {
    end,
    bypassed,
    lose: (host: number) => end.unreachable(endpoint(host), "EHOSTUNREACH"),
    /** Lets so many seconds pass. */
    pass: (seconds: number) => {
      for (let i = 0; i < seconds; i++) check();
    },
    /** Answers the look-up, and has the answer arrive. */
    find: async (...hosts: number[]) => {
      found.resolve(peers(...hosts));
      for (let i = 0; i < 10; i++) await found.promise;
    },
  };
}

Deno.test("UdpTransport has each address of its peer leave beside the tunnel again before it uses it", async () => {
  const { end, bypassed, lose, pass, find } = transport(1, 2, 3);
  using _end = end;
  deepStrictEqual(bypassed.splice(0), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
  lose(1);
  deepStrictEqual([end.peer, bypassed.splice(0)], ["192.0.2.2:4500", ["192.0.2.2"]]);
  pass(5);
  await find(1, 2, 4);
  // Of many, a tunnel forgets those first that it was told first.
  strictEqual(end.peer, "192.0.2.2:4500");
  deepStrictEqual(bypassed, ["192.0.2.1", "192.0.2.2", "192.0.2.4", "192.0.2.2"]);
});

Deno.test("UdpTransport that is closed while its peer's name is looked up has nothing leave beside the tunnel", async () => {
  const { end, bypassed, lose, pass, find } = transport(1, 2);
  lose(1);
  pass(5);
  end.close();
  bypassed.length = 0;
  await find(7, 8);
  deepStrictEqual(bypassed, []);
});
