/** The firewall's rules: against a slow evaluation, as text, and wrong ones. */

import { deepEqual, equal, match, throws } from "node:assert/strict";
import { parseAddress, parseCidr } from "@warren/tunnel/address";
import { Direction, PacketPool } from "@warren/tunnel/core";
import { Firewall, type FirewallRule, formatRules } from "@warren/tunnel/firewall";
import { Random } from "../../../../lib/core/random.ts";
import { encodePacket } from "../../../kit/packet_text.ts";
import { randomPacket, randomRule } from "./_traffic.ts";

// Specification
const PROTOCOLS: Record<string, number> = { icmp: 1, tcp: 6, udp: 17, icmpv6: 58 };

function all<Value>(values: Value | readonly Value[]): Value[] {
  return [values].flat() as Value[];
}

function bits(address: string): string {
  return Array.from(parseAddress(address).bytes, (byte) => byte.toString(2).padStart(8, "0")).join("");
}

/** Evaluates a rule slowly, on the text of a new packet. */
function matches(rule: FirewallRule, text: string, direction: string): boolean {
  const [kind, src, , dst] = text.split(" ") as [string, string, string, string];
  const [srcAddress, dstAddress] = [src, dst].map((end) =>
    end.replace(/^\[(.*)\].*$|^([\d.]+):\d+$/, "$1$2")
  );
  const [srcPort, dstPort] = [src, dst].map((end) => Number(/[\].\d]:(\d+)$/.exec(end)?.[1]));
  const is6 = srcAddress!.includes(":");
  const protocol = kind === "ip"
    ? Number(/protocol (\d+)/.exec(text)![1])
    : kind === "icmp"
    ? is6 ? 58 : 1
    : PROTOCOLS[kind]!;
  const hasPorts = protocol === 6 || protocol === 17;
  const contains = (prefix: string, address: string) => {
    if (prefix.includes(":") !== is6) return false;
    const length = prefix.includes("/") ? parseCidr(prefix).length : is6 ? 128 : 32;
    return bits(prefix.split("/")[0]!).slice(0, length) === bits(address).slice(0, length);
  };
  const isPort = (range: number | string, port: number) => {
    const [from, to = from] = String(range).split("-").map(Number);
    return hasPorts && port >= from! && port <= to!;
  };
  const [letters = "", mask = ""] = (rule.tcpFlags ?? "").split("/");
  const flags = kind === "tcp" ? text.split(" ")[4]! : "";
  return (rule.direction ?? direction) === direction &&
    (rule.src === undefined || all(rule.src).some((prefix) => contains(prefix, srcAddress!))) &&
    (rule.dst === undefined || all(rule.dst).some((prefix) => contains(prefix, dstAddress!))) &&
    (rule.protocol === undefined ||
      all(rule.protocol).some((one) => (PROTOCOLS[one] ?? one) === protocol)) &&
    (rule.srcPort === undefined || all(rule.srcPort).some((range) => isPort(range, srcPort!))) &&
    (rule.dstPort === undefined || all(rule.dstPort).some((range) => isPort(range, dstPort!))) &&
    (rule.icmpType === undefined ||
      kind === "icmp" && all(rule.icmpType).includes(Number(/type (\d+)/.exec(text)![1]))) &&
    (rule.tcpFlags === undefined ||
      kind === "tcp" && Array.from(mask).every((flag) => flags.includes(flag) === letters.includes(flag)));
}

Deno.test("Firewall decides about new packets as a slow evaluation of its rules does", () => {
  const pool = new PacketPool({ small: 2, large: 0 });
  let matched = 0;
  for (let seed = 1; seed <= 300; seed++) {
    const random = new Random(seed);
    const rules = Array.from(
      { length: random.below(12) },
      () => randomRule(random, { states: false, rates: false }),
    );
    const firewall = new Firewall({
      rules,
      default: { outbound: "allow", inbound: "reject" },
      neighbors: false,
    });
    for (let i = 0; i < 40; i++) {
      const isOutbound = random.below(2) === 0;
      const direction = isOutbound ? "outbound" : "inbound";
      const text = randomPacket(random, isOutbound);
      const packet = pool.from(encodePacket(text))!;
      const explained = firewall.explain(packet, isOutbound ? Direction.Outbound : Direction.Inbound);
      pool.give(packet);
      if (explained.state !== "new") continue;
      const index = rules.findIndex((rule) => matches(rule, text, direction));
      const verdict = rules[index]?.verdict ?? (isOutbound ? "allow" : "reject");
      deepEqual(
        [explained.rule?.number, explained.verdict],
        [index < 0 ? undefined : index + 1, verdict],
        `seed ${seed}: ${text}\n${formatRules(rules)}`,
      );
      if (index >= 0) matched++;
    }
  }
  equal(matched > 1000, true, `${matched} packets matched a rule`);
});

Deno.test("Firewall calls a rule's function last", () => {
  const asked: number[] = [];
  const firewall = new Firewall({
    rules: [{
      verdict: "allow",
      direction: "inbound",
      protocol: "udp",
      match: (packet) => {
        asked.push(packet.length);
        return packet.length > 30;
      },
    }],
  });
  const pool = new PacketPool({ small: 1, large: 0 });
  const verdicts = [
    "udp 192.0.2.1:1 > 10.9.0.1:2",
    'udp 192.0.2.1:1 > 10.9.0.1:2 "long"',
    "tcp 192.0.2.1:1 > 10.9.0.1:2 S",
  ]
    .map((text) => {
      const packet = pool.from(encodePacket(text))!;
      const { verdict } = firewall.explain(packet, Direction.Inbound);
      pool.give(packet);
      return verdict;
    });
  deepEqual([verdicts, asked], [["drop", "allow", "drop"], [28, 32]]);
});

Deno.test("Firewall formats its rules as text, one per line", () => {
  const firewall = new Firewall({
    rules: [
      {
        verdict: "allow",
        direction: "inbound",
        protocol: "tcp",
        src: "10.0.0.0/8",
        dstPort: [22, "8000-8099"],
        name: "admins",
      },
      {
        verdict: "drop",
        src: "192.0.2.1",
        srcPort: 53,
        dst: ["10.9.0.1", "fd09::1"],
        dstPort: 5000,
        state: ["new", "invalid"],
      },
      { verdict: "reject", tcpFlags: "S/SA", rate: { packetsPerSecond: 5, burst: 9, perSource: true } },
      { verdict: "allow", protocol: ["icmp", "icmpv6"], icmpType: [8, 128], match: () => true },
      { verdict: "allow", rate: { packetsPerSecond: 10 / 60 } },
    ],
    default: "drop",
  });
  equal(
    String(firewall),
    [
      "1  allow inbound tcp from 10.0.0.0/8 to port 22, 8000-8099  # admins",
      "2  drop any direction new, invalid from 192.0.2.1 port 53 to 10.9.0.1, fd09::1 port 5000",
      "3  reject any direction flags S/SA up to 5 a second, 9 at once from each source",
      "4  allow any direction icmp, icmpv6 type 8, 128 where match",
      "5  allow any direction up to 10 a minute",
      "default outbound drop, inbound drop",
    ].join("\n"),
  );
});

Deno.test("Firewall rejects a wrong rule, with its number and field", () => {
  const wrong: [object, string, new () => Error][] = [
    [{ verdict: "permit" }, "verdict", TypeError],
    [{}, "verdict", TypeError],
    [{ verdict: "drop", colour: "red" }, "colour", TypeError],
    [{ verdict: "drop", name: "" }, "name", TypeError],
    [{ verdict: "drop", direction: "sideways" }, "direction", TypeError],
    [{ verdict: "drop", src: "10.9.0.0/33" }, "src", SyntaxError],
    [{ verdict: "drop", dst: ["10.9.0.0/24", "10.9.0"] }, "dst", SyntaxError],
    [{ verdict: "drop", dst: [] }, "dst", TypeError],
    [{ verdict: "drop", src: 7 }, "src", TypeError],
    [{ verdict: "drop", dstPort: 65_536 }, "dstPort", RangeError],
    [{ verdict: "drop", srcPort: "90-80" }, "srcPort", RangeError],
    [{ verdict: "drop", srcPort: "http" }, "srcPort", SyntaxError],
    [{ verdict: "drop", srcPort: {} }, "srcPort", TypeError],
    [{ verdict: "drop", dstPort: 22, protocol: "icmp" }, "dstPort", TypeError],
    [{ verdict: "drop", protocol: "http" }, "protocol", TypeError],
    [{ verdict: "drop", protocol: 256 }, "protocol", TypeError],
    [{ verdict: "drop", icmpType: 8 }, "icmpType", TypeError],
    [{ verdict: "drop", protocol: "icmp", icmpType: 256 }, "icmpType", TypeError],
    [{ verdict: "drop", tcpFlags: "S" }, "tcpFlags", TypeError],
    [{ verdict: "drop", tcpFlags: "SA/S" }, "tcpFlags", TypeError],
    [{ verdict: "drop", tcpFlags: "S/SA", protocol: "udp" }, "tcpFlags", TypeError],
    [{ verdict: "drop", state: "old" }, "state", TypeError],
    [{ verdict: "drop", rate: { packetsPerSecond: 0 } }, "rate", RangeError],
    [{ verdict: "drop", rate: { packetsPerSecond: 1, burst: 0.5 } }, "rate", RangeError],
    [{ verdict: "drop", rate: { packetsPerSecond: 1, persource: true } }, "rate", TypeError],
    [{ verdict: "drop", rate: { packetsPerSecond: 1, perSource: "no" } }, "rate", TypeError],
    [{ verdict: "drop", rate: { packetsPerSecond: "1" } }, "rate", TypeError],
    [{ verdict: "drop", match: "tcp" }, "match", TypeError],
  ];
  for (const [rule, field, error] of wrong) {
    const rules = [{ verdict: "allow" }, rule] as FirewallRule[];
    throws(() => new Firewall({ rules }), (thrown: Error) => {
      match(
        thrown.message,
        new RegExp(
          `^Cannot use rule 2: (${field}(\\.\\w+)? (must |is missing$)|there is no option "${field}[".])`,
        ),
      );
      return thrown instanceof error;
    }, JSON.stringify(rule));
  }
  throws(
    () => new Firewall({ rules: [null as unknown as FirewallRule] }),
    /rule 1: rule must be an object, got null$/,
  );
  throws(() => new Firewall({ rules: {} as [] }), /rules must be an array, got an object$/);
  throws(
    () => new Firewall({ default: "maybe" as "drop" }),
    /default must be "allow", "drop" or "reject", got "maybe"$/,
  );
  throws(
    () => new Firewall({ default: { inbuond: "allow" } as object }),
    /there is no option "default\.inbuond"/,
  );
  throws(
    () => new Firewall({ midStream: "false" as unknown as boolean }),
    /midStream must be true or false, got "false"$/,
  );
  throws(
    () => new Firewall({ neighbors: "no" as unknown as boolean }),
    /neighbors must be true or false, got "no"$/,
  );
  throws(() => new Firewall({ capacity: 0 }), RangeError);
});
