import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readLedger } from "../host/ledger.ts";
import type { HostedSandbox } from "./hosted-sandbox.ts";
import { memberCgroups, SharedSandbox } from "./shared-sandbox.ts";

/** A sandbox that says what is done with it. */
function scripted(failing: readonly string[] = []) {
  const said: string[] = [];
  const say = async (what: string): Promise<void> => {
    said.push(what);
    if (failing.includes(what)) throw new Error(`${what} failed`);
  };
  const hosted = {
    showsFolders: true,
    sandbox: { mount: ({ target }: { target: string }) => say(`show ${target}`) },
    mirrorNetwork: () => say("mirror"),
  } as unknown as HostedSandbox;
  const lead = {};
  const shared = new SharedSandbox(lead, Promise.resolve(hosted), (ended, abruptly) =>
    say(`end ${ended === hosted ? "" : "nothing"}${abruptly ? "abruptly" : "in peace"}`),
  );
  return { said, say, lead, shared };
}

const needs = (...targets: readonly string[]) => ({
  shown: targets.map((target) => ({ source: "/s", target, readonly: false })),
  disks: [],
});

test("it ends with the last of its members, once all have parted", async () => {
  const { said, lead, shared } = scripted();
  const second = {};
  await shared.join(second, needs("b/rootfs"));
  const parted = Promise.withResolvers<void>();
  const first = shared.leave(lead, { part: (goesOn) => parted.promise.then(() => void said.push(`first, ${goesOn}`)) });
  const last = shared.leave(second, { part: async (goesOn) => void said.push(`last, ${goesOn}`) });
  parted.resolve();
  await Promise.all([first, last]);
  expect(said).toEqual(["show b/rootfs", "last, false", "first, true", "end in peace"]);
  await shared.leave(second); // again: nothing
  expect(said).toHaveLength(4);
});

test("once it ends, nobody joins it", async () => {
  const { lead, shared } = scripted();
  const ending = shared.leave(lead, { abruptly: true });
  await expect(shared.join({}, needs())).rejects.toMatchObject({ code: "wrong-state", message: "the sandbox is ending" });
  await ending;
});

test("who could not be shown what it needs is a member, until it leaves", async () => {
  const { said, lead, shared } = scripted(["show b/rootfs"]);
  const second = {};
  await expect(shared.join(second, needs("b/rootfs"))).rejects.toThrow("show b/rootfs failed");
  await shared.leave(lead);
  expect(shared.over).toBeUndefined();
  await shared.leave(second, { abruptly: true });
  expect(said.at(-1)).toBe("end abruptly");
});

test("the network is mirrored once, and again only where that failed", async () => {
  const { said, shared } = scripted();
  await Promise.all([shared.mirrorNetwork(), shared.mirrorNetwork()]);
  expect(said).toEqual(["mirror"]);
  const failing = scripted(["mirror"]);
  await expect(failing.shared.mirrorNetwork()).rejects.toThrow("mirror failed");
  await expect(failing.shared.mirrorNetwork()).rejects.toThrow("mirror failed");
  expect(failing.said).toEqual(["mirror", "mirror"]);
});

test("one that was never launched ends as well", async () => {
  const said: string[] = [];
  const lead = {};
  const shared = new SharedSandbox(lead, Promise.reject(new Error("no QEMU")), async (hosted) => void said.push(String(hosted)));
  await shared.leave(lead);
  expect(said).toEqual(["undefined"]);
});

test("the cgroups above a member's, which were made for another one, go with the last of them", async () => {
  const folder = mkdtempSync(join(tmpdir(), "husk-members-"));
  const [ledger, mountPoint] = [join(folder, "ledger"), join(folder, "cgroup")];
  const hosted = {
    cgroups: ["lead's"],
    madeCgroups: new Set([join(mountPoint, "pod"), join(mountPoint, "pod/lead")]),
  } as unknown as HostedSandbox;
  const hierarchies = [{ mountPoint, version: 1, controllers: ["pids"] }] as const;
  const lead = await memberCgroups({ hosted, isLead: true }, { hierarchies, at: "/pod/lead" }, ledger, "no helper");
  expect(lead.folders).toEqual(["lead's"]);
  mkdirSync(join(mountPoint, "pod"), { recursive: true });
  const other = await memberCgroups({ hosted, isLead: false }, { hierarchies, at: "/pod/other" }, ledger, "no helper");
  expect(other.folders).toEqual([join(mountPoint, "pod/other")]);
  expect(readLedger(ledger)).toEqual(["pod", "pod/other"].map((path) => ({ kind: "cgroup", path: join(mountPoint, path) })));
  rmSync(folder, { recursive: true });
});
