import { expect, test } from "vitest";
import { matchLinks } from "./mirror.ts";

const link = (name: string, mac: string) => ({ name, mac, kind: "veth", mtu: 1500, index: 1, addresses: [], up: true, no_arp: false });
const [eth0, eth1] = [
  { index: 0, name: "eth0", mac: "02:00:00:00:00:01" },
  { index: 1, name: "eth1", mac: "02:00:00:00:00:02" },
];

test("a device gets the link with its MAC address, or else with its name, or else one that is left", () => {
  const [same, renamed, other] = [link("eth0", eth0.mac), link("a", eth1.mac), link("eth1", "02:00:00:00:00:09")];
  const names = (links: Parameters<typeof matchLinks>[1]) =>
    matchLinks([eth0, eth1], links).map((match) => [match.device.name, match.link.name]);
  expect(names([other, same])).toEqual([
    ["eth0", "eth0"],
    ["eth1", "eth1"],
  ]);
  expect(names([other, renamed, same])).toEqual([
    ["eth0", "eth0"],
    ["eth1", "a"],
  ]);
  expect(names([link("x", "02:00:00:00:00:08"), other])).toEqual([
    ["eth0", "x"],
    ["eth1", "eth1"],
  ]);
});

test("a namespace without a link for a device is refused", () => {
  expect(() => matchLinks([eth0, eth1], [link("eth0", eth0.mac)])).toThrow(
    expect.objectContaining({
      code: "invalid-argument",
      message: "the checkpointed container had 2 network links (eth0, eth1), its network namespace has 1 now",
    }),
  );
});
