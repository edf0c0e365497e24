/** Pods as a kubelet makes them, through containerd's CRI plugin and the shim: one virtual machine for a pod. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { test } from "../harness/cri/cri.ts";
import { isHusk } from "../harness/runtime.ts";

/** A look takes a call or two, and those their time in a guest that is emulated. */
const slowly = { timeout: 30_000 };

const forever = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done";

/** Waits until a container has ended, and answers how: CRI tells it to those who ask. */
async function ended(pod: { status(id: string): Promise<{ state: number; exit_code: number; reason: string }> }, id: string) {
  await expect.poll(async () => (await pod.status(id)).state, slowly).toBe(2);
  return pod.status(id);
}

test("a pod's containers are one machine: network, host name, shared memory, and each its own processes and files", async ({ cri }) => {
  const pod = await cri.pod();
  const first = await pod.run("first", forever);
  const second = await pod.run("second", "echo from the second > /dev/shm/file; hostname; exec httpd -f -p 8080 -h /dev/shm");
  await expect.poll(() => pod.log("second"), slowly).toContain("pod0\n");

  await expect
    .poll(async () => (await pod.exec(first, "wget -q -O - http://127.0.0.1:8080/file")).stdout, slowly)
    .toBe("from the second\n");
  expect((await pod.exec(first, "cat /dev/shm/file; hostname")).stdout).toBe("from the second\npod0\n");
  expect((await pod.exec(first, "ps | grep -c '[h]ttpd'")).stdout).toBe("0\n");
  expect((await pod.exec(first, "echo mine > /file; cat /file")).stdout).toBe("mine\n");
  expect((await pod.exec(second, "cat /file")).status).toBe(1);
  if (isHusk) {
    const kernel = (await pod.exec(first, "cat /proc/sys/kernel/random/boot_id")).stdout;
    expect((await pod.exec(second, "cat /proc/sys/kernel/random/boot_id")).stdout).toBe(kernel);
    expect(kernel).not.toBe(readFileSync("/proc/sys/kernel/random/boot_id", "utf8"));
  }
  await pod.remove();
});

test("the pod's address answers from outside, and the pod reaches the bridge", async ({ cri, engines }) => {
  const pod = await cri.pod();
  const { status } = await cri.call<{ status: { network: { ip: string } } }>("PodSandboxStatus", { pod_sandbox_id: pod.id });
  const server = await pod.run("server", "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp");
  await expect.poll(async () => (await pod.exec(server, `wget -q -O - http://${status.network.ip}/`)).stdout, slowly).toBe("hello\n");
  expect(await engines.inside("busybox", "wget", "-q", "-O", "-", `http://${status.network.ip}/`)).toBe("hello\n");
  expect((await pod.exec(server, "ping -c 1 -W 5 10.88.7.1")).status).toBe(0);
  await pod.remove();
});

test("whoever dials localhost in the pod's namespace, as port-forward does, reaches the pod", async ({ cri, engines }) => {
  const pod = await cri.pod();
  const server = await pod.run("server", "echo forwarded > /tmp/index.html; exec httpd -f -p 127.0.0.1:8080 -h /tmp");
  await expect.poll(async () => (await pod.exec(server, "wget -q -O - http://127.0.0.1:8080/")).stdout, slowly).toBe("forwarded\n");
  const [namespace = ""] = (await engines.inside("ls", "/run/netns")).trim().split("\n");
  const dial = ["nsenter", `--net=/run/netns/${namespace}`, "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/"];
  expect(await engines.inside(...dial)).toBe("forwarded\n");
  await pod.remove();
});

test("containers come, end, and come again; their statuses and logs stay", async ({ cri }) => {
  const pod = await cri.pod();
  const main = await pod.run("main", forever);
  const job = await pod.run("job", "echo out; echo err >&2; exit 3");
  expect(await ended(pod, job)).toMatchObject({ exit_code: 3, reason: "Error" });
  expect(pod.log("job").split("\n").toSorted(), "the engine reads each by itself").toEqual(["", "err", "out"]);
  await cri.call("RemoveContainer", { container_id: job });
  for (const attempt of [1, 2]) {
    const again = await pod.run("job", `echo attempt ${attempt}`, { attempt });
    expect(await ended(pod, again)).toMatchObject({ exit_code: 0, reason: "Completed" });
    expect(pod.log("job", attempt)).toBe(`attempt ${attempt}\n`);
  }
  await cri.call("StopContainer", { container_id: main, timeout: 20 });
  expect(await pod.status(main)).toMatchObject({ state: 2, exit_code: 0 });
  await pod.remove();
});

test("processes are shared where the pod wants it", async ({ cri }) => {
  const pod = await cri.pod({ sharedProcesses: true });
  const first = await pod.run("first", forever);
  await pod.run("second", "exec httpd -f -p 8080");
  await expect.poll(async () => (await pod.exec(first, "ps | grep -c '[h]ttpd -f'")).stdout, slowly).toBe("1\n");
  expect((await pod.exec(first, "killall httpd")).status).toBe(0);
  await pod.remove();
});

test("a sidecar redirects the pod's traffic", async ({ cri, engines }) => {
  const pod = await cri.pod();
  const programs = ["/usr", "/usr/lib:/lib", "/usr/lib64:/lib64"].map((names) => {
    const [host_path = "", container_path = host_path] = names.split(":");
    return { host_path, container_path, readonly: true };
  });
  const xtables = "/usr/sbin/xtables-nft-multi";
  const redirect = `${xtables} iptables -t nat -A OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 15001`;
  const sidecar = await pod.run(
    "sidecar",
    `set -e; ${redirect}; echo through the proxy > /tmp/index.html; echo set; exec httpd -f -p 15001 -h /tmp`,
    {
      capabilities: ["NET_ADMIN"],
      mounts: programs,
    },
  );
  await expect.poll(() => pod.log("sidecar"), slowly).toContain("set\n");
  const application = await pod.run("application", forever);
  await expect.poll(async () => (await pod.exec(application, "wget -q -O - http://10.88.7.1/")).stdout, slowly).toBe("through the proxy\n");
  expect((await pod.exec(sidecar, `${xtables} iptables -t nat -S OUTPUT`)).stdout).toContain("--to-ports 15001");
  // The rules are the pod's own: the namespace on the host has none of them.
  expect(await engines.inside("iptables", "-t", "nat", "-S", "OUTPUT")).not.toContain("15001");
  await pod.remove();
});

test("a volume is shared by two containers and the host", async ({ cri, engines }) => {
  const pod = await cri.pod();
  const volume = join(engines.folder, "volume");
  mkdirSync(volume);
  writeFileSync(join(volume, "host"), "from the host\n");
  const mounts = [{ host_path: volume, container_path: "/volume" }];
  const writer = await pod.run("writer", `cat /volume/host; echo from the writer > /volume/file; ${forever}`, { mounts });
  await expect.poll(() => pod.log("writer"), slowly).toContain("ready\n");
  const reader = await pod.run("reader", forever, {
    mounts: [{ ...mounts[0], container_path: "/other", host_path: volume, readonly: true }],
  });
  expect((await pod.exec(reader, "cat /other/file; touch /other/x")).stdout).toBe("from the writer\n");
  expect(readFileSync(join(volume, "file"), "utf8")).toBe("from the writer\n");
  expect((await pod.exec(writer, "cat /volume/host")).stdout).toBe("from the host\n");
  await pod.remove();
});

test("a pod's sysctls are all its containers', and mounts of the host's that come later show where they are asked for", async ({
  cri,
  engines,
}) => {
  const volume = join(engines.folder, "followed");
  mkdirSync(volume);
  await engines.inside("mount", "-t", "tmpfs", "--make-shared", "tmpfs", volume);
  await engines.inside("mkdir", `${volume}/later`);
  const pod = await cri.pod({
    sysctls: { "net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "net.ipv4.conf.eth0.rp_filter": "2" },
  });
  const mounts = [
    { host_path: volume, container_path: "/followed", propagation: 1 },
    { host_path: volume, container_path: "/private" },
  ];
  const main = await pod.run("main", forever, { mounts });
  const settings = "net/ipv4/ip_forward kernel/shm_rmid_forced net/ipv4/conf/eth0/rp_filter";
  expect((await pod.exec(main, `cd /proc/sys; cat ${settings}; ls /followed/later`)).stdout).toBe("1\n1\n2\n");

  await engines.inside("mount", "-t", "tmpfs", "tmpfs", `${volume}/later`);
  await engines.inside("touch", `${volume}/later/file`);
  await expect
    .poll(async () => (await pod.exec(main, "ls /followed/later /private/later")).stdout, slowly)
    .toBe("/followed/later:\nfile\n\n/private/later:\n");
  await pod.remove();
  await engines.inside("umount", `${volume}/later`);
  await engines.inside("umount", volume);
});

test("memory: the limit acts on the container, its figures are the guest's, and it can be raised", async ({ cri }) => {
  const pod = await cri.pod();
  const main = await pod.run("main", forever, { memoryBytes: 64 * 1024 ** 2 });
  const { stats } = await cri.call<{ stats: { memory: { working_set_bytes: { value: number } } } }>("ContainerStats", {
    container_id: main,
  });
  expect(stats.memory.working_set_bytes.value).toBeGreaterThan(100_000);
  expect(stats.memory.working_set_bytes.value).toBeLessThan(64 * 1024 ** 2);
  const limit = async (): Promise<string> =>
    (await pod.exec(main, "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes")).stdout;
  expect(await limit()).toBe(`${64 * 1024 ** 2}\n`);
  await cri.call("UpdateContainerResources", { container_id: main, linux: { memory_limit_in_bytes: 96 * 1024 ** 2 } });
  expect(await limit()).toBe(`${96 * 1024 ** 2}\n`);
  const hog = await pod.run("hog", "tail /dev/zero", { memoryBytes: 16 * 1024 ** 2 });
  expect(await ended(pod, hog)).toMatchObject({ exit_code: 137, reason: "OOMKilled" });
  expect(await pod.status(main)).toMatchObject({ state: 1 });
  await pod.remove();
});

test.runIf(isHusk)(
  "a pod grows with its containers and their updates, gives back, and the host's cgroup follows the sum",
  async ({ cri }) => {
    const MIB = 1024 ** 2;
    const pod = await cri.pod(); // without a size of its own: 1 processor, 1024 MiB for containers and 128 for the guest
    const cgroup = (hierarchy: string, file: string): number =>
      Number(readFileSync(`/sys/fs/cgroup/${hierarchy}/kubepods/${pod.id}/${file}`, "utf8"));
    const allowed = (): number => cgroup("memory", "memory.limit_in_bytes") / MIB - 384;
    const most = Math.min(2, availableParallelism());
    const first = await pod.run("first", forever, { memoryBytes: 512 * MIB, cpuQuota: 50_000, cpuShares: 512 });
    const guest = async (): Promise<[mebibytes: number, processors: number]> => {
      const [memory = "", processors] = (await pod.exec(first, "sed -n 's/^MemTotal: *//p' /proc/meminfo; nproc")).stdout.split("\n");
      return [Number.parseInt(memory, 10) / 1024, Number(processors)];
    };
    const [base] = await guest();
    expect([base < 1152, allowed(), cgroup("cpu", "cpu.shares")]).toEqual([true, 1152, 512]);

    const second = await pod.run("second", forever, { memoryBytes: 1024 * MIB, cpuQuota: (most - 0.5) * 100_000, cpuShares: 1024 });
    expect([allowed(), cgroup("cpu", "cpu.shares")]).toEqual([512 + 1024 + 128, 1536]);
    expect(await guest()).toEqual([expect.closeTo(base + 512, -1), most]);

    const update = (id: string, linux: object) => cri.call("UpdateContainerResources", { container_id: id, linux });
    await update(first, { memory_limit_in_bytes: 640 * MIB });
    expect([allowed(), (await guest())[0]]).toEqual([640 + 1024 + 128, expect.closeTo(base + 640, -1)]);
    expect((await pod.exec(first, "cat /sys/fs/cgroup/memory.max")).stdout).toBe(`${640 * MIB}\n`);
    await expect(update(first, { memory_limit_in_bytes: 2 ** 50 })).rejects.toThrow(
      /linux\.resources\.memory\.limit: it needs a virtual machine with \d+ MiB of memory, and this one can have \d+ MiB at most/,
    );
    expect((await pod.exec(first, "cat /sys/fs/cgroup/memory.max")).stdout).toBe(`${640 * MIB}\n`);

    await cri.call("StopContainer", { container_id: second, timeout: 20 });
    await expect.poll(allowed, { timeout: 60_000 }).toBe(1152);
    await expect.poll(guest, { timeout: 60_000 }).toEqual([expect.closeTo(base, -1), 1]);
    expect(cgroup("cpu", "cpu.shares")).toBe(512);
    await pod.remove();
  },
);
