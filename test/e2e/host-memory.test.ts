/** `husk stats --host`: what sandboxes take of the host, process by process. */
import { readFileSync } from "node:fs";
import { expect } from "vitest";
import { type Host, test } from "../harness/host.ts";

interface SandboxMemory {
  readonly id: string;
  readonly pss: number;
  readonly processes: readonly { readonly role: string; readonly pid: number; readonly pss: number }[];
}

async function memory(host: Host, ...ids: readonly string[]): Promise<SandboxMemory[]> {
  return JSON.parse(await host.ok("stats", "--host", "--format", "json", ...ids)) as SandboxMemory[];
}

test("every process of a sandbox is there, execs' stand-ins as well, and the sum is theirs", async ({ host }) => {
  const bundle = host.script("echo ready; sleep 1000");
  const { id, foreground } = await host.running(bundle);
  const exec = host.launch(["exec", id, "sh", "-c", "echo in; exec sleep 1000"]);
  await exec.stdout?.until("in\n");
  const [sandbox, ...others] = await memory(host, id);
  expect(others).toEqual([]);
  expect(sandbox?.processes.map(({ role }) => role).toSorted()).toEqual(
    expect.arrayContaining(["helper sandbox", "qemu", "stand-in", "stand-in", "supervisor", "virtiofsd"]),
  );
  expect(sandbox?.processes.map(({ pid }) => pid)).toEqual(expect.arrayContaining([foreground.pid, exec.pid]));
  expect(sandbox?.pss).toBe(sandbox?.processes.reduce((sum, { pss }) => sum + pss, 0));
  const qemu = sandbox?.processes.find(({ role }) => role === "qemu");
  expect(readFileSync(`/proc/${qemu?.pid}/cmdline`, "utf8")).toContain("qemu-system");
  expect(qemu?.pss).toBeGreaterThan(16 * 1024 ** 2); // a guest's kernel at the least
  expect(await host.ok("stats", "--host")).toMatch(new RegExp(`^${id} +all +\\d+\\.\\d MiB `, "m"));
  await host.ok("kill", id, "KILL");
  await Promise.all([foreground.ended(), exec.ended()]);
});

test("what has no sandbox takes nothing, and who asks for it is told", async ({ host }) => {
  const { id, program } = await host.create(host.script("exit 0"));
  await host.ok("start", id);
  await program.ended();
  await host.until(async () => (await host.state(id)).status === "stopped");
  expect((await memory(host)).map((sandbox) => sandbox.id)).not.toContain(id);
  expect((await host.runtime("stats", "--host", id)).stderr).toContain(`container "${id}" is stopped, and has no sandbox`);
  expect((await host.runtime("stats", "--host", "nobody")).stderr).toContain('container "nobody" does not exist');
  expect((await host.runtime("stats", id)).stderr).toContain("stats: expected --host");
  await host.ok("delete", id);
});
