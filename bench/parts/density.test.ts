import { expect, test } from "vitest";
import { byRole } from "./density.ts";

test("what a sandbox takes, and each of its processes, those of a role together", () => {
  const process = (role: string, mebibytes: number) => ({ role, pss: mebibytes * 2 ** 20 });
  const sandboxes = [
    { pss: 50 * 2 ** 20, processes: [process("qemu", 30), process("helper sandbox", 1), process("helper sandbox", 2)] },
    { pss: 60 * 2 ** 20, processes: [process("qemu", 40)] },
  ];
  expect([...byRole(sandboxes)]).toEqual([
    ["husk", [50, 60]],
    ["qemu", [30, 40]],
    ["helper sandbox", [3, 0]],
  ]);
});
