import { expect, test } from "vitest";
import { parseShim } from "./arguments.ts";

const containerd = [
  "-namespace",
  "k8s.io",
  "-address",
  "/run/c.sock",
  "-publish-binary",
  "/usr/bin/containerd",
  "-id",
  "c1",
  "-bundle",
  "/b",
];

test("containerd's flags, with one dash or two, joined or apart", () => {
  const expected = {
    action: "delete",
    namespace: "k8s.io",
    address: "/run/c.sock",
    publishBinary: "/usr/bin/containerd",
    id: "c1",
    bundle: "/b",
  };
  expect(parseShim([...containerd, "delete"])).toMatchObject({ ...expected, debug: false });
  expect(parseShim([...containerd, "-debug", "delete"])).toMatchObject({ ...expected, debug: true });
  expect(parseShim([...containerd.slice(2), "--namespace=k8s.io", "delete"])).toMatchObject(expected);
});

test("-info needs nothing else", () => {
  expect(parseShim(["-info"])).toMatchObject({ action: "info" });
});

test.each([[["-colour", "red", "serve"]], [["start"]], [[]], [["serve", "-id"]]])("%j is refused", (words) => {
  expect(() => parseShim(words)).toThrow(/expected serve, delete or info/);
});
