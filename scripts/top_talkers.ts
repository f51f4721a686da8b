#!/usr/bin/env -S deno run --allow-ffi
/**
 * Joins two TUN devices, and says every two seconds who talks most: by flow, by prefix and by protocol.
 * Try: as relay.ts says, then iperf3 -s in lab; iperf3 -c 10.9.0.2; ping 10.9.0.2
 */
import { device, script } from "@warren/tunnel";
import { formatAddress, formatCidr } from "@warren/tunnel/address";
import { Count } from "@warren/tunnel/count";
import { compileFilter } from "@warren/tunnel/filter";
import { Meter, type Traffic } from "@warren/tunnel/meter";

const MOST = 5;
const options = { name: "left", address: "10.9.0.1/24", far: device({ name: "right" }) };

const say = ({ rateBitsPerSecond, bytesOut, bytesIn }: Traffic) => ({
  "Mbit/s": Number((rateBitsPerSecond / 1e6).toFixed(3)),
  "bytes out": bytesOut,
  "bytes in": bytesIn,
});

export default script(import.meta, options, async (tunnel) => {
  const meter = new Meter({ halfLife: 1000 });
  const opened = new Count({ name: "opened", filter: compileFilter("tcp[tcpflags] = tcp-syn") });
  const print = () => {
    console.table(
      meter.flows(MOST).map(({ protocol, near, far, nearPort, farPort, ...talk }) => {
        const ends = { near: `${formatAddress(near)} ${nearPort}`, far: `${formatAddress(far)} ${farPort}` };
        return { protocol, ...ends, ...say(talk) };
      }),
    );
    console.table(
      meter.prefixes(MOST).map(({ prefix, ...talk }) => ({ far: formatCidr(prefix), ...say(talk) })),
    );
    console.table(meter.protocols().map(({ protocol, ...talk }) => ({ protocol, ...say(talk) })));
    console.log(`Connections: ${opened.counted.outbound.packets} out, ${opened.counted.inbound.packets} in`);
  };
  const timer = setInterval(print, 2000);
  await tunnel.use(meter).use(opened).run().finally(() => clearInterval(timer));
  print();
});
