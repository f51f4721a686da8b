/** Golden tests of the resolver: answers without upstreams. */

import { BlockList, DnsResolver, type DnsResolverOptions, FakeIp, type FakeIpOptions } from "@warren/tunnel/dns";
import { goldenTests } from "../kit/golden.ts";

/** The resolver's options that JSON can hold. */
interface Options extends Pick<DnsResolverOptions, "records" | "zones" | "blockAnswer" | "connections"> {
  block?: string[];
  fakeIp?: FakeIpOptions;
}

goldenTests<Options>(new URL("dns.txt", import.meta.url), ({ block = [], fakeIp, ...options }) => [
  new DnsResolver({
    address: ["10.9.0.53", "fd09::53"],
    block: new BlockList(block),
    ...options,
    ...(fakeIp === undefined ? {} : { fakeIp: new FakeIp(fakeIp) }),
  }),
]);
