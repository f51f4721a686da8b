/** Settable fields are listed in each class's comment: `deno doc` prints no accessor that has a setter. */

import assert from "node:assert/strict";
import config from "../../deno.json" with { type: "json" };
import { PacketPool } from "../../lib/core/mod.ts";

/** Fields of a packet that belong to the runtime. */
const OF_THE_RUNTIME = ["bytes", "view", "slotStart", "slotEnd", "pool", "slot", "owner", "isFixed", "views"];

/** The names of the accessors that have a setter, inherited ones too. */
function setters({ prototype }: { prototype: object }): string[] {
  const found: string[] = [];
  for (let one = prototype; one !== Object.prototype; one = Object.getPrototypeOf(one)) {
    const accessors = Object.entries(Object.getOwnPropertyDescriptors(one));
    found.push(...accessors.filter(([, { set }]) => set !== undefined).map(([name]) => name));
  }
  return found;
}

/** The comments of all classes of the package, by the class's name. */
async function comments(folder: URL): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    if (isDirectory) {
      for (const entry of await comments(new URL(`${name}/`, folder))) found.set(...entry);
    } else if (/\.ts$/.test(name)) {
      const text = await Deno.readTextFile(new URL(name, folder));
      for (
        const [, comment, of] of text.matchAll(
          /\/\*\*((?:(?!\*\/)[^])*)\*\/\nexport (?:abstract )?class (\w+)/g,
        )
      ) {
        found.set(of!, comment!);
      }
    }
  }
  return found;
}

/** The fields that a class's comment lists. */
function listed(comment: string): string[] {
  const [, list = ""] = /\*\*Fields that can be set\*\*:((?:(?!\n \*\n)[^])*)/.exec(comment) ?? [];
  return [...new Set(Array.from(list.matchAll(/`(\w+)`/g), ([, name]) => name!))];
}

Deno.test("Every exported class lists the fields that can be set", async () => {
  const root = new URL("../../", import.meta.url);
  const texts = new Map<string, string>();
  for (const floor of ["lib/", "driver/", "runtime/"]) {
    for (const entry of await comments(new URL(floor, root))) texts.set(...entry);
  }
  const checked = new Set<string>();
  for (const path of Object.values(config.exports)) {
    for (const value of Object.values(await import(new URL(path, root).href) as Record<string, unknown>)) {
      if (typeof value !== "function" || !/^class\b/.test(String(value)) || checked.has(value.name)) continue;
      const names = setters(value as unknown as { prototype: object });
      if (names.length === 0) continue;
      checked.add(value.name);
      assert.deepEqual(listed(texts.get(value.name) ?? "").sort(), names.sort(), value.name);
    }
  }
  for (const name of ["Ipv4", "Ipv6", "Tcp", "Udp", "Icmpv4", "Icmpv6"]) assert.ok(checked.has(name), name);
  const fields = Object.keys(new PacketPool().take(0)!).filter((name) => !OF_THE_RUNTIME.includes(name));
  const ofPacket = listed(texts.get("Packet")!);
  for (const name of fields) assert.ok(ofPacket.includes(name), `Packet.${name}`);
});
