import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { loadConfig } from "../config/config.ts";
import { defaultSpec } from "../oci/default-spec.ts";
import type { SandboxSpec } from "../sandbox/sandbox-plan.ts";
import { wantStandby } from "./want-standby.ts";

/** A template with a zygote, and what a container's sandbox is planned with. */
function warm() {
  const folder = mkdtempSync(join(tmpdir(), "husk-standby-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  mkdirSync(join(folder, "zygote"));
  const order = join(folder, "zygote", "standby.json");
  const sandbox = { template: { folder }, zygote: {}, shares: true } as unknown as SandboxSpec;
  return { order, imageOrder: join(folder, "zygote", "standby-image.json"), sandbox };
}

async function configured(standby = true) {
  const { config } = await loadConfig({ env: {}, files: { readText: () => undefined, list: () => [] } });
  return { ...config, template: { ...config.template, standby } };
}

test("a container that a sandbox which stands by would have done for asks for one, once", async () => {
  process.env["HUSK_POOL"] = "/nonexistent/pools";
  onTestFinished(() => {
    process.env["HUSK_POOL"] = "";
  });
  const { order, sandbox } = warm();
  await wantStandby(defaultSpec, sandbox, await configured());
  const written: unknown = JSON.parse(readFileSync(order, "utf8"));
  expect(written).toMatchObject({
    root: "/nonexistent/pools",
    key: expect.stringMatching(/^[0-9a-f]{32}$/) as string,
    settings: { "vm.vcpus": "1", "vm.memory": "1GiB" },
    environment: { HUSK_POOL: "/nonexistent/pools", PATH: process.env["PATH"] },
  });
  expect(statSync(order).mode & 0o777).toBe(0o600);
  const before = statSync(order).ino;
  await wantStandby(defaultSpec, sandbox, await configured());
  expect(statSync(order).ino).toBe(before);
});

test("one whose files are all in images asks for another one", async () => {
  process.env["HUSK_POOL"] = "/nonexistent/pools";
  onTestFinished(() => {
    process.env["HUSK_POOL"] = "";
  });
  const { order, imageOrder, sandbox } = warm();
  await wantStandby(defaultSpec, { ...sandbox, shares: false }, await configured());
  expect([existsSync(order), existsSync(imageOrder)]).toEqual([false, true]);
  await wantStandby(defaultSpec, sandbox, await configured());
  expect(existsSync(order)).toBe(true);
});

test("others ask for none", async () => {
  process.env["HUSK_POOL"] = "/nonexistent/pools";
  onTestFinished(() => {
    process.env["HUSK_POOL"] = "";
  });
  const { order, sandbox } = warm();
  const config = await configured();
  await wantStandby(defaultSpec, sandbox, await configured(false));
  await wantStandby(defaultSpec, { ...sandbox, zygote: undefined }, config);
  await wantStandby({ ...defaultSpec, vm: { kernel: { path: "/kernel" } } }, sandbox, config);
  process.env["HUSK_POOL"] = "";
  await wantStandby(defaultSpec, sandbox, config);
  expect(existsSync(order)).toBe(false);
});

test("a keeper that is gone is asked for nothing", async () => {
  process.env["HUSK_POOL"] = "/nonexistent/pools";
  onTestFinished(() => {
    process.env["HUSK_POOL"] = "";
  });
  const { order, sandbox } = warm();
  rmSync(join(order, ".."), { recursive: true });
  await wantStandby(defaultSpec, sandbox, await configured());
  expect(existsSync(order)).toBe(false);
});
