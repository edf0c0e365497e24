import { expect, test } from "vitest";
import { RuntimeInfo } from "../gen/containerd/types/types.ts";
import { version } from "../version.ts";
import { runtimeInfo } from "./info.ts";

test("what containerd learns of the runtime: its name, its version, and the spec's features as JSON", () => {
  const info = RuntimeInfo.decode(RuntimeInfo.encode(runtimeInfo()).finish());
  expect(info).toMatchObject({ name: "io.containerd.husk.v2", version: { version } });
  expect(info.features?.typeUrl).toBe("types.containerd.io/opencontainers/runtime-spec/1/features/Features");
  const features = JSON.parse(Buffer.from(info.features?.value ?? []).toString()) as { mountOptions: string[]; linux: object };
  expect(features.mountOptions).toContain("rro");
  expect(features.linux).toMatchObject({ mountExtensions: { idmap: { enabled: false } } });
});
