/** A container that takes more memory than it may, as an engine's users meet it. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import type { Engine } from "./engines.ts";
import { isHusk } from "./runtime.ts";

const MIB = 1024 ** 2;

/** What husk lets a sandbox have beyond its containers' limits: the guest itself, and QEMU with virtiofsd. */
const overheadBytes = (128 + 384) * MIB;

/**
 * Runs one of 64 MiB: what hogs is killed, and nothing else, and the host has nothing to do with it. With more memory, more than its machine was made with,
 * it has room.
 */
export async function expectHogKilled(engine: Engine, flags: readonly string[], image: string): Promise<void> {
  await engine.ok(
    "run",
    "--detach",
    "--name",
    "hog",
    "--memory",
    "64m",
    ...flags,
    image,
    "sh",
    "-c",
    "tail /dev/zero; echo $?; exec sleep 1000",
  );
  try {
    await expect.poll(() => engine.ok("logs", "hog"), { timeout: 60_000 }).toBe("137\n");
    expect(await engine.ok("exec", "hog", "echo", "alive")).toBe("alive\n");
    if (!isHusk) return;
    const id = (await engine.ok("inspect", "--format", "{{.Id}}", "hog")).trim();
    const cgroup = findCgroup("/sys/fs/cgroup/memory", id) ?? "no cgroup";
    const number = (file: string): number => Number(readFileSync(join(cgroup, file), "utf8"));
    expect([number("memory.limit_in_bytes"), number("memory.failcnt")]).toEqual([64 * MIB + overheadBytes, 0]);
    await engine.ok("update", "--memory", "384m", "--memory-swap", "384m", "hog");
    expect(number("memory.limit_in_bytes")).toBe((192 + 384) * MIB + 384 * MIB); // the machine's 192 MiB, and whole blocks of 128 on top
    await engine.ok("exec", "hog", "dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1");
  } finally {
    await engine.run("rm", "--force", "hog");
  }
}

/** The folder below `folder` whose name has `id` in it. */
function findCgroup(folder: string, id: string): string | undefined {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    const path = join(folder, entry.name);
    const found = entry.name.includes(id) ? path : findCgroup(path, id);
    if (found !== undefined) return found;
  }
  return undefined;
}
