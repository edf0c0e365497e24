/** What holds for a pod by the Sandbox API, whichever containerd asks for it: no pause container, the shim is told of the pod itself. */
import { readFileSync } from "node:fs";
import { expect } from "vitest";
import type { Cri } from "./cri.ts";

interface PodStatus {
  readonly status: { readonly state: number; readonly network: { readonly ip: string } };
  readonly info: Readonly<Record<string, string>>;
}

export async function podBySandboxApi(cri: Cri): Promise<void> {
  const pod = await cri.pod({ handler: "husk-sandbox", sysctls: { "net.ipv4.ip_forward": "1" } });
  const { status, info } = await cri.call<PodStatus>("PodSandboxStatus", { pod_sandbox_id: pod.id, verbose: true });
  expect(status.state).toBe(0);
  const told = JSON.parse(info["info"] ?? "") as { runtimeSpec: { linux: { namespaces: object[] } } };
  expect(told).toMatchObject({
    pid: expect.toSatisfy((pid: number) => pid > 0),
    processStatus: "running",
    netNamespaceClosed: false,
    runtimeSpec: {
      hostname: "pod0",
      annotations: { "io.kubernetes.cri.sandbox-id": pod.id, "io.kubernetes.cri.sandbox-namespace": "default" },
    },
  });
  expect(told.runtimeSpec.linux.namespaces).toContainEqual({ type: "network", path: expect.stringMatching(/\/netns\/cni-/) });
  const server = await pod.run("server", "echo page > /tmp/index.html; exec httpd -f -p 80 -h /tmp");
  const client = await pod.run("client", "trap 'exit 0' TERM; while :; do sleep 0.1; done");
  await expect
    .poll(async () => (await pod.exec(client, `wget -q -O - http://${status.network.ip}/`)).stdout, { timeout: 30_000 })
    .toBe("page\n");
  expect((await pod.exec(client, "hostname; cat /proc/sys/net/ipv4/ip_forward")).stdout).toBe("pod0\n1\n");
  expect((await pod.exec(client, "cat /etc/hostname /etc/resolv.conf; grep -c localhost /etc/hosts")).stdout).toBe(
    `pod0\nsearch cluster.local example.org\nnameserver 10.88.7.53\noptions ndots:5\n${readFileSync("/etc/hosts", "utf8").match(/^.*localhost.*$/gm)?.length}\n`,
  );
  expect((await pod.exec(server, "ping -c 1 -W 5 10.88.7.1")).status).toBe(0);
  await cri.call("StopContainer", { container_id: client, timeout: 20 });
  expect(await pod.status(client)).toMatchObject({ state: 2, exit_code: 0 });
  await pod.remove();
}
