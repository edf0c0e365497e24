/**
 * husk on a host with KVM, vhost-vsock and vhost-net: run by test/kvm-host, in an emulated machine. What differs from the end-to-end tests is
 * the accelerator, the channel to the agent and the way of the packets; a container does the same on both.
 */
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { type Host, test } from "../harness/host.ts";
import { kvm } from "../harness/kvm.ts";
import { makeNetwork } from "../harness/network.ts";
import type { HostProcess } from "../harness/processes.ts";
import { findPart } from "../harness/sandbox-processes.ts";

function qemuOf(host: Host, id: string): HostProcess {
  const qemu = findPart(host, id, "qemu");
  if (qemu === undefined) throw new Error(`container ${id} has no QEMU`);
  return qemu;
}

function openFiles(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
}

test("exit codes and streams", async ({ host }) => {
  const options = kvm(host);
  expect(await host.run(host.script("echo out; echo err >&2; exit 42"), options)).toEqual({ status: 42, stdout: "out\n", stderr: "err\n" });
  const cat = host.launch(["run", "--bundle", host.bundle({ process: { args: ["wc", "-c"] } }).path, "cat"], { ...options, stdin: "pipe" });
  cat.stdin.end(Buffer.alloc(4 * 1024 * 1024));
  expect(await cat.ended()).toEqual({ status: 0, stdout: "4194304\n", stderr: "" });
  const numbers = Array.from({ length: 200_000 }, (_, index) => `${index}\n`).join("");
  const bulk = host.script("cat /numbers");
  writeFileSync(join(bulk.rootfs, "numbers"), numbers);
  expect((await host.run(bulk, options)).stdout === numbers).toBe(true);
});

test("KVM runs the guest, and the agent is reached by vsock", async ({ host }) => {
  const { id, foreground } = await host.running(host.script("echo ready; read line; exit 5"), { ...kvm(host), stdin: "pipe" });
  const qemu = qemuOf(host, id);
  expect(qemu.command).toContain(" -accel kvm ");
  expect(openFiles(qemu.pid)).toEqual(expect.arrayContaining([expect.stringMatching(/kvm$/), expect.stringMatching(/vhost-vsock$/)]));

  expect(await host.runtime("exec", id, "sh", "-c", "echo beside; exit 3")).toEqual({ status: 3, stdout: "beside\n", stderr: "" });
  expect(await host.ok("ps", id)).toContain("read line");
  await host.ok("pause", id);
  expect((await host.state(id)).status).toBe("paused");
  await host.ok("resume", id);
  foreground.stdin.end("\n");
  expect((await foreground.ended()).status).toBe(5);
});

test("two at once, each with a vsock address of its own", async ({ host }) => {
  const options = { ...kvm(host), stdin: "pipe" } as const;
  const started = await Promise.all(
    ["one", "two"].map((hostname) => host.running(host.script("echo ready; read line; hostname", { hostname }), options)),
  );
  for (const { foreground } of started) foreground.stdin.end("\n");
  const ends = await Promise.all(started.map(({ foreground }) => foreground.ended()));
  expect(ends.map(({ stdout }) => stdout)).toEqual(["ready\none\n", "ready\ntwo\n"]);
});

test("packets go by vhost-net", async ({ host }) => {
  const network = await makeNetwork(host);
  const namespaces = [...["pid", "ipc", "uts", "mount"].map((type) => ({ type })), { type: "network", path: network.path }];
  const script = "ping -c 3 -q 10.93.7.1 | grep packets; echo ready; read line";
  const { id, foreground } = await host.running(host.script(script, { linux: { namespaces } }), { ...kvm(host), stdin: "pipe" });
  expect(foreground.stdout?.text()).toBe("3 packets transmitted, 3 packets received, 0% packet loss\nready\n");
  expect(openFiles(qemuOf(host, id).pid)).toContainEqual(expect.stringMatching(/vhost-net$/));
  foreground.stdin.end("\n");
  expect((await foreground.ended()).status).toBe(0);
  await network.close();
});

test("kill -9 of QEMU is told, and nothing is left", async ({ host }) => {
  const { id, foreground } = await host.running(host.script("echo ready; exec sleep 1000"), kvm(host));
  process.kill(qemuOf(host, id).pid, "SIGKILL");
  const { status, stderr } = await foreground.ended();
  expect(status).toBe(137);
  expect(stderr).toMatch(/^husk: the sandbox of ".+" ended: QEMU was killed by signal 9.*\n$/);
});

test("a checkpoint with an open file of the container's folder, from which it goes on", async ({ host }) => {
  const options = { ...kvm(host, "serial"), stdin: "pipe" } as const;
  const bundle = host.script("exec 3>/kept; echo ready; while read line; do echo $line >&3; done; cat /kept");
  const { id, foreground } = await host.running(bundle, options);
  foreground.stdin.write("a\n");
  await host.until(() => readFileSync(join(bundle.rootfs, "kept"), "utf8") === "a\n", 60_000);
  await host.ok("checkpoint", "--image-path", host.path("image"), id);
  expect((await foreground.ended()).status).toBe(137);
  const restored = host.launch(["restore", "--bundle", bundle.path, "--image-path", host.path("image"), id], options);
  restored.stdin.end("b\n");
  expect(await restored.ended()).toEqual({ status: 0, stdout: "a\nb\n", stderr: "" });
});

test("create, start and delete", async ({ host }) => {
  const { id, program } = await host.create(host.script("exit 7"), [], kvm(host));
  await host.ok("start", id);
  await program.ended();
  await host.until(async () => (await host.state(id)).status === "stopped", 60_000);
  await host.ok("delete", id);
});
