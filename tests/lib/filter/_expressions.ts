/** Filters as text: listed ones, and random ones from a seed. */

import type { Random } from "../../../lib/core/random.ts";

/** Each way to ask, at least once. */
export const EXPRESSIONS: readonly string[] = `
ip
ip6
tcp
udp
icmp
icmp6
sctp
igmp
igrp
pim
vrrp
carp
esp
ah
not ip
not tcp
! udp
not not ip6
tcp or udp
tcp and udp or icmp
icmp or tcp and udp
ip and not (tcp or udp)
ip && !(tcp || udp)
host 10.0.0.1
src host 10.0.0.1
dst host 10.0.0.1
src 10.0.0.1
dst 10.0.0.1
src or dst 10.0.0.1
dst or src host 10.0.0.1
src and dst host 10.0.0.1
dst and src host 10.0.0.1
ip host 10.0.0.1
host 10.0.0.1 or 10.0.0.2
host 10.0
host 10.1.2
host 167772161
host 0xa000001
host fd00::1
src host fd00::1
ip6 dst host ff02::1
src and dst host fd00::1
host ::1
host 2001:db8::0.0.0.1
net 10
net 10.0
net 10.1.2
net 10.0.0.0/8
net 10.0/16
net 10.0.0.0/31
net 0.0.0.0/0
net 10.0.0.0 mask 255.0.0.0
net 10.0.0.0 mask 255.0.0.1
src net 10.0.0.0/8
dst net 192.168.1.0/24
src and dst net 10
ip net 10
net 224
net fd00::/8
net fd00::/12
net fd00::/34
src net fd00::/36
dst net ff00::/8
net ::/0
net fd00::1
ip6 src net 2001:db8::/32
not net 10.0.0.0/8
port 80
src port 80
dst port 80
src or dst port 80
src and dst port 80
tcp port 80
udp port 53
sctp port 22
tcp src port 443
port 0
port 65535
port 0x50
port 0120
port 80 or 443
port (80)
port (80 or 443)
port not 80
tcp port 80 or 443
tcp port 80 and not (443 or 5000)
tcp port (80 or 443) and net 10
tcp port 80 and net 10.0.0.0/8
tcp port 80 or udp port 53 or 5000
tcp port 80 or (udp port 53) or 443
not port 80
not port 80 or 443
portrange 80-443
portrange 443-80
portrange 80
tcp portrange 50-90
src portrange 5000-6001
dst portrange 0-1023 or 6000-6010
ip proto 17
ip proto \\tcp
ip proto \\udp
ip6 proto 17
ip6 proto 44
ip6 proto \\tcp
proto 6
proto 6 or 17
proto \\icmp
ip proto 0
proto not 6
proto (6 or 17)
less 100
greater 100
less 20 or greater 200
len > 50
len = 180
length <= 60
len >= ip[2:2]
len - 20 > 100
ip multicast
ip6 multicast
ip broadcast
ip[0] & 0xf != 5
ip[0] & 0xf > 5
ip[8] < 64
ip[6:2] & 0x1fff = 0
ip[6:2] & 0x1fff != 0 and udp
ip[12:4] = 0x0a000001
ip[12:4] > 0xc0000000
ip[12:4] & 0xff000000 = 10 << 24
ip[2:2] < 0x7fff
ip[ip[1] & 7] > 3
ip[ip[1]] > 128
ip6[6] = 6
ip6[4:2] > 1000
ip6[40] = 8
ip6[8:4] = 0xfd000000
tcp[13] & 2 != 0
tcp[tcpflags] & (tcp-syn|tcp-fin) != 0
tcp[tcpflags] == tcp-syn
tcp[tcpflags] & tcp-ack = tcp-ack
tcp[0:2] = 80 or tcp[2:2] = 80
tcp[4:4] > 0x80000000
tcp[12] >> 4 > 5
tcp[(tcp[12] & 0xf0) >> 2] = 0x47
tcp[((tcp[12:1] & 0xf0) >> 2):4] > 7
not tcp[13] & 2 != 0
tcp [ 0 : 2 ] = 80
udp[4:2] > 100
udp[0:2] != 53 and udp
udp[100] > 5
icmp[icmptype] = icmp-echo
icmp[icmptype] != icmp-echo and icmp[icmptype] != icmp-echoreply
icmp[icmpcode] > 100
icmp6[icmp6type] = icmp6-echo
icmp6[0] = 128 or icmp6[icmp6type] = icmp6-neighborsolicit
icmp6[0:4] > 5
sctp[0:2] = 80
igmp[0] > 5
pim[0] > 5
vrrp[1] > 5
carp[1] > 5
igrp[1:2] > 5
1 = 1
1 = 2
not 1 = 2
0xffffffff > 1
- 1 > 5
3 - 5 > 5
5 + 3 * 2 = 11
(5 + 3) * 2 = 16
5 % 3 + 1 = 1
2 * 5 % 3 = 4
1 | 2 & 3 << 1 = 3
7 ^ 2 | 1 = 4
10 / 3 = 3
0xffffffff / 2 = 0x7fffffff
0xfffffffe % 7 = 2
len << 30 != 0
1 << len != 0
0xffffffff >> len = 0
len / (len - len) = 1
not len / ip[1] = 3
not len % (ip[1] & 1) = 3
ip or len / ip6[1] = 0
ip[1] * ip[2] > 1000
ip[12:4] * ip[16:4] > 1000
ip[12:4] + ip[16:4] < 0x14000010
ip[12:4] - ip[16:4] > 0x80000000
-ip[1] > 0xffffff80
1 + tcp[0] > 3
tcp[0] + udp[1] > 40
ip[1] = ip[2] or ip6[1] = ip6[2]
ip[1] > ip6[2]
len > 30 and ip[30] > 128
len = 0 or ip
len < 1 or not ip
(len) > 40
(ip[1]) & 1 = 1
((ip[1] & 1) = 1)
((tcp port 80) or ((udp)))
src host 10.0.0.1 and (tcp port 80 or 443) and not dst net 192.168.0.0/16
ip6 and tcp
(ip6 and tcp port 80) or (ip and udp port 53)
`.trim().split("\n");

/** Reads before a header's start, which libpcap's optimizer takes for reads far behind the packet's end. */
export const BACKWARD: readonly string[] = [
  "tcp[- 1] > 100",
  "tcp[0 - 20] & 0xf0 = 0x40",
  "udp[- 4:4] > 100",
  "icmp6[- 1] > 100",
];

/** Ports and protocols by their names. */
export const NAMED: readonly string[] = [
  "port domain",
  "proto gre",
  "proto \\udp",
  "port ssh or 80",
  "portrange ssh-http",
  "portrange 22-http",
  "tcp port https",
  "udp port domain",
  "dst port domain",
  "ip6 proto gre",
];

/** Protocols behind extension headers. */
export const CHAINED: readonly string[] = [
  "protochain 6",
  "ip6 protochain 17",
  "ip protochain 17",
  "protochain \\tcp and not port 80",
  "ip6 protochain 44 or 43",
  "not ip6 protochain 59",
];

/** Expressions that libpcap refuses. */
export const REFUSED: readonly string[] = `
ip or
or ip
ip ip
(ip
ip)
()
not
tcp 80
80
10.0.0.1
(port 80) or 443
tcp and 80
tcp or http
src or src host 1.2.3.4
host
host 10.0.0.1/31
host fd00::/8
dst 10.0.0.0/8
net 10/8
net 10.1.1.1/8
net 10.0.0.0/33
net fd00::1/8
net fd00::/129
net 10.0.0.0 mask 255
net 10.0.0.1 mask 255.0.0.0
net 256.1
host 1.2.3.4.5
host 300.1.1.1
ip host fd00::1
ip6 host 10.0.0.1
ip6 net 10
tcp host 10.0.0.1
udp net 10
ip port 80
ip6 port 80
icmp port 80
port 65536
port -1
port 10.0.0.1
port fd00::1
port 00080
port nosuchport
portrange 1-70000
portrange http-
udp port ssh
tcp port ntp
proto tcp
ip proto icmp
tcp proto 80
proto nosuchprotocol
src proto 6
gateway 10.0.0.1
ether host 2:0:0:0:0:1
ether[0] = 1 and vlan
host 2:0:0:0:0:1
vlan
mpls
llc
type mgt
radio
broadcast
multicast
ip6 broadcast
tcp multicast
esp[0] = 1
ah[0] = 1
ip[0:3] = 1
ip[0:8] = 1
ip[0
ip[] = 1
ip[0:] = 1
ip[0] = 3 = 4
ip[0]
ip[0] &
len
len = 
len / 0 = 1
len % 0 = 1
1 << 32 = 0
less
less (5)
less 5+3
greater len
icmp6[0-1] = 1
0x = 1
4294967296 = 1
089 = 1
ip @ tcp
"tcp"
tcp port 80 or (443 or udp)
port (80 or udp port 53)
TCP
host example
`.trim().split("\n");

function pick(random: Random, items: string): string {
  const list = items.split("|");
  return list[random.below(list.length)]!.trim();
}

function sum(random: Random, depth: number): string {
  switch (random.below(depth > 2 ? 3 : 8)) {
    case 0:
      return `${random.below(300)}`;
    case 1:
    case 2: {
      const place = random.below(6) === 0 && depth < 3
        ? `(${sum(random, depth + 2)}) & 15`
        : `${random.below(36)}`;
      return `${pick(random, "ip|ip6|tcp|udp|icmp|icmp6|ip|ip6")}[${place}${pick(random, "|:1|:2|:4")}]`;
    }
    case 3:
      return "len";
    case 4:
      return `- ${sum(random, depth + 1)}`;
    case 5:
      return `(${sum(random, depth + 1)})`;
    default: {
      const operator = pick(random, "+ - * & ^ / % << >>".replaceAll(" ", "|") + "|or");
      return `${sum(random, depth + 1)} ${operator.replace("or", "|")} ${sum(random, depth + 1)}`;
    }
  }
}

function primitive(random: Random): string {
  const side = pick(random, "|src|dst|src or dst|src and dst|");
  switch (random.below(8)) {
    case 0:
      return pick(
        random,
        "ip|ip6|tcp|udp|icmp|icmp6|sctp|pim|ah|proto 6|ip proto 17|ip6 proto 44|ip6 proto 6",
      );
    case 1:
      return `${side} host ${pick(random, "10.0.0.1|10.0.0.2|fd00::1|2001:db8::1")}`;
    case 2:
      return `${side} net ${pick(random, "10|10.0.0.0/15|fd00::/32|192.168.0.0/16|10.1|fd00::/64")}`;
    case 3:
      return `${pick(random, "|tcp|udp|sctp")} ${side} port ${pick(random, "80|53|443|22")}`;
    case 4:
      return `${pick(random, "|tcp|udp")} ${side} portrange ${pick(random, "20-60|80-5000|0-100")}`;
    case 5:
      return pick(random, "less 100|greater 170|ip multicast|ip6 multicast|ip broadcast");
    default:
      return `${sum(random, 0)} ${pick(random, "=|!=|<|<=|>|>=")} ${sum(random, 1)}`;
  }
}

/**
 * A random filter: primitives, joined and negated. Some are refused, by libpcap, too. The prefixes of IPv6 have whole
 * words: libpcap's optimizer takes "src net fd00::/35 and src net fd00::/35" for false.
 */
export function randomExpression(random: Random, depth = 0): string {
  const parts: string[] = [];
  for (let count = 1 + random.below(3); count > 0; count--) {
    const isGroup = depth < 2 && random.below(4) === 0;
    const part = isGroup ? `(${randomExpression(random, depth + 1)})` : primitive(random);
    if (parts.length > 0) parts.push(pick(random, "and|or"));
    parts.push(random.below(5) === 0 ? `not ${part}` : part);
  }
  return parts.join(" ").replaceAll(/ +/g, " ").trim();
}
