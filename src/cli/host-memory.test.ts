import { expect, test } from "vitest";
import { memoryTable, roleOf, shimName } from "./host-memory.ts";

test("what a process is to its sandbox", () => {
  expect(roleOf(["/usr/bin/qemu-system-x86_64", "-name", "husk"])).toBe("qemu");
  expect(roleOf(["/lib/husk-helper", "sandbox"])).toBe("helper sandbox");
  expect(roleOf(["/lib/husk-helper", "network", "serve"])).toBe("helper network");
  expect(roleOf(["/lib/husk-helper", "front", "--node", "/lib/node", "--dist", "/lib/dist"])).toBe("stand-in");
  expect(roleOf(["husk-helper", "stand-in"])).toBe("stand-in");
  expect(roleOf(["/lib/virtiofsd", "--fd=3"])).toBe("virtiofsd");
  expect(roleOf(["/lib/node", "/lib/dist/supervisor.js", "run", "box"])).toBe("supervisor");
  expect(roleOf(["/lib/node", "--optimize-for-size", "/lib/dist/shim.js", "serve"])).toBe("shim");
  expect(roleOf([])).toBe("?");
});

test("a shim's server names what it serves; the shim's other calls serve nothing", () => {
  const words = ["/lib/node", "--no-warnings", "/lib/dist/shim.js"];
  expect(shimName([...words, "serve", "-namespace", "k8s.io", "-id", "pod", "-socket", "/run/s"])).toBe("k8s.io/pod");
  expect(shimName([...words, "delete", "-namespace", "k8s.io", "-id", "pod"])).toBeUndefined();
  expect(shimName(["/lib/node", "other.js", "serve"])).toBeUndefined();
});

test("a line a process, and the sum", () => {
  const mebibyte = 1024 ** 2;
  const memory = (pss: number) => ({ pss: pss * mebibyte, anonymous: (pss / 2) * mebibyte, file: (pss / 2) * mebibyte, shared: 0 });
  const processes = [
    { role: "supervisor", pid: 10, ...memory(20) },
    { role: "qemu", pid: 12, ...memory(30.5) },
  ];
  expect(memoryTable([{ id: "box", pss: 50.5 * mebibyte, processes }])).toBe(
    [
      "ID   PROCESS     PID  PSS       ANON      FILE      SHARED",
      "box  supervisor  10   20.0 MiB  10.0 MiB  10.0 MiB  0.0 MiB",
      "box  qemu        12   30.5 MiB  15.3 MiB  15.3 MiB  0.0 MiB",
      "box  all              50.5 MiB  25.3 MiB  25.3 MiB  0.0 MiB",
      "",
    ].join("\n"),
  );
});
