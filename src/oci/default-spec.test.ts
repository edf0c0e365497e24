import { expect, test } from "vitest";
import { configJson, defaultSpec, rootless } from "./default-spec.ts";
import { judge } from "./support.ts";
import { parseSpec } from "./validate.ts";

test.each([
  ["the default", defaultSpec],
  ["the one for an ordinary user", rootless(defaultSpec, 1000, 100)],
])("%s is valid, and husk honours all of it", (_, spec) => {
  expect(parseSpec(configJson(spec))).toEqual({ value: spec, unknown: [] });
  expect(judge(spec, { bundle: "/b", sources: new Map() })).toEqual([]);
});

test("an ordinary user's has that user alone, asks for no other's group, and has no limits", () => {
  const { mounts, linux } = rootless(defaultSpec, 1000, 100);
  expect(linux).toMatchObject({
    uidMappings: [{ containerID: 0, hostID: 1000, size: 1 }],
    gidMappings: [{ containerID: 0, hostID: 100, size: 1 }],
  });
  expect(linux).not.toHaveProperty("resources");
  expect(linux?.namespaces?.map(({ type }) => type)).toEqual(["pid", "network", "ipc", "uts", "mount", "cgroup", "user"]);
  expect(mounts?.find(({ type }) => type === "devpts")?.options).toEqual(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
});

test("it is written as runc writes it", () => {
  expect(configJson(defaultSpec)).toMatch(/^\{\n\t"ociVersion": "1\.2\.0",\n\t"process": \{\n\t\t"terminal": true,\n/);
  expect(configJson(defaultSpec)).toMatch(/\n\}\n$/);
});
