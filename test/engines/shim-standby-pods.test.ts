/** husk's shim that stands by for the next pod, whose network namespace CRI has made. */
import { expect } from "vitest";
import { test as base, type Cri } from "../harness/cri/cri.ts";
import type { Engines } from "../harness/engines.ts";
import { readProcess } from "../harness/processes.ts";
import { isHusk } from "../harness/runtime.ts";
import { qemuOf } from "../harness/sandbox-processes.ts";
import { StandingShims } from "../harness/standing-shims.ts";

const test = base.override("generation", "newest").override("warm", true);

const page = "echo page > /tmp/index.html; exec httpd -f -p 80 -h /tmp";

/** A shim that stands by for pods that are made in that way. */
function ready(engines: Engines, cri: Cri, handler: string): Promise<StandingShims> {
  return StandingShims.ready(engines, async () => {
    const pod = await cri.pod({ handler });
    await pod.run("main", page);
    await pod.remove();
  });
}

test.runIf(isHusk).for(["husk", "husk-sandbox"])(
  "the next pod is served by it, with the pod's name, network and port-forwarding, however it is made (%s)",
  async (handler, { cri, engines }) => {
    await using standing = await ready(engines, cri, handler);
    const { pid } = await standing.untilOneWaits();
    const qemu = qemuOf(pid)?.pid ?? expect.fail("it has no QEMU");
    const pod = await cri.pod({ handler });
    const { status } = await cri.call<{ status: { network: { ip: string } } }>("PodSandboxStatus", { pod_sandbox_id: pod.id });
    expect(readProcess(pid)?.command).toMatch(new RegExp(`shim\\.js serve .* -id ${pod.id} `));
    expect(qemuOf(pid)?.pid).toBe(qemu);
    const main = await pod.run("main", page);
    const fetch = (address: string): Promise<string> => engines.inside("busybox", "wget", "-q", "-O", "-", `http://${address}/`);
    await expect.poll(() => fetch(status.network.ip).catch(String), { timeout: 30_000 }).toBe("page\n");
    expect((await pod.exec(main, "hostname; ping -c 1 -q -W 20 10.88.7.1 | grep received")).stdout).toMatch(
      /^pod\d+\n1 packets.* 1 packets received/,
    );
    const [namespace = ""] = (await engines.inside("ls", "/run/netns")).trim().split("\n");
    const dial = ["nsenter", `--net=/run/netns/${namespace}`, "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1/"];
    expect(await engines.inside(...dial)).toBe("page\n");
    await pod.remove();
  },
);

test.runIf(isHusk).for(["husk", "husk-sandbox"])("a pod that needs another machine has one (%s)", async (handler, { cri, engines }) => {
  await using standing = await ready(engines, cri, handler);
  const { pid } = await standing.untilOneWaits();
  const qemu = qemuOf(pid)?.pid ?? expect.fail("it has no QEMU");
  const pod = await cri.pod({ handler, memoryBytes: 192 * 1024 ** 2 });
  const main = await pod.run("main", page);
  expect((await pod.exec(main, "hostname; ping -c 1 -q -W 20 10.88.7.1 | grep received")).stdout).toMatch(
    /^pod\d+\n1 packets.* 1 packets received/,
  );
  // By the Sandbox API it is known too late; what stood by is ended then.
  if (handler === "husk") expect((await standing.untilOneWaits()).pid).toBe(pid);
  else expect(readProcess(qemu)).toBeUndefined();
  await pod.remove();
});
