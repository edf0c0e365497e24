import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { loadConfig } from "../config/config.ts";
import { defaultSpec } from "../oci/default-spec.ts";
import type { SandboxSpec } from "../sandbox/sandbox-plan.ts";
import type { StandbyKind } from "./pool-folder.ts";
import { mayStandBy } from "./want-standby.ts";

test("a sandbox could stand by for a container that is like one that was copied from a zygote, whatever network namespace that has", async () => {
  process.env["HUSK_POOL"] = "/pools";
  const folder = mkdtempSync(join(tmpdir(), "husk-standby-"));
  onTestFinished(() => {
    process.env["HUSK_POOL"] = "";
    rmSync(folder, { recursive: true });
  });
  const { config } = await loadConfig({ env: {}, files: { readText: () => undefined, list: () => [] } });
  const copied = { template: { folder }, zygote: {}, netns: null } as unknown as SandboxSpec;
  const may = (change: object, kind: StandbyKind = "folder", spec = defaultSpec): boolean =>
    mayStandBy(kind, spec, { ...copied, ...change }, config) !== undefined;
  expect(mayStandBy("shim", defaultSpec, copied, config)).toEqual({ kind: "shim", root: "/pools", template: { folder } });
  expect([may({}), may({ netns: "/run/netns/given" })]).toEqual([true, true]);
  expect([may({ template: null }), may({ zygote: undefined })]).toEqual([false, false]);
  expect(may({}, "folder", { ...defaultSpec, vm: { kernel: { path: "/kernel" } } })).toBe(false);
  const without = { ...config, template: { ...config.template, standby: false } };
  expect(mayStandBy("folder", defaultSpec, copied, without)).toBe(undefined);
  mkdirSync(join(folder, "zygote"));
  writeFileSync(join(folder, "zygote", "standby.json"), "{}");
  expect([may({}), may({}, "shim")]).toEqual([false, true]);
  process.env["HUSK_POOL"] = "";
  expect(may({}, "shim")).toBe(false);
});
