import { expect, test } from "vitest";
import { pathOf } from "./sandbox-cgroups.ts";

const hybrid = `9:name=systemd:/machine.slice/a.scope
8:memory:/other
0::/unified
`;

test("a process's cgroup is that of systemd's own hierarchy", () => {
  expect(pathOf("0::/machine.slice/husk-a.scope\n", 2)).toBe("/machine.slice/husk-a.scope");
  expect(pathOf(hybrid, 1)).toBe("/machine.slice/a.scope");
  expect(pathOf("0::/a:b\n", 2)).toBe("/a:b");
});

test("a host whose cgroups systemd does not manage is told of", () => {
  expect(() => pathOf("3:memory:/x\n", 1)).toThrow("systemd manages no cgroups here");
});
