#!/usr/bin/env -S deno run --allow-ffi --allow-net --allow-read --allow-env
/**
 * Answers DNS at 10.9.0.53 and fd09::53, and blocks names.
 * Try: dig @10.9.0.53 example.com; dig @10.9.0.53 ads.example;
 * or start it with BLOCK_LIST=/etc/hosts.block UPSTREAM=https://9.9.9.9/dns-query
 */
import { script } from "@warren/tunnel";
import { BlockList, DnsResolver } from "@warren/tunnel/dns";
import { parseUpstream } from "@warren/tunnel/dns_upstream";

// A name a line, or a hosts file. Without one, these.
const file = Deno.env.get("BLOCK_LIST");
const few = "ads.example\n*.tracker.example\n";
// 192.0.2.1, tcp://192.0.2.1:53, https://192.0.2.1/dns-query: not reached through the tunnel.
const server = Deno.env.get("UPSTREAM") ?? "9.9.9.9";

export default script(import.meta, { address: ["10.9.0.1/24", "fd09::1/64"] }, async (tunnel) => {
  const block = BlockList.parse(file === undefined ? few : await Deno.readTextFile(file));
  for (const { line, message } of block.warnings) console.error(`${file}:${line}: left out: ${message}`);
  using upstream = parseUpstream(server);
  const resolver = new DnsResolver({
    address: ["10.9.0.53", "fd09::53"],
    records: ["router.lan A 10.9.0.1", "router.lan AAAA fd09::1", "dns.lan A 10.9.0.53"],
    zones: ["lan"],
    block,
    upstream,
  });
  await tunnel.use(resolver).run();
  console.error(`${block.size} names in the list; ${resolver.counters.blocked} queries blocked`);
});
