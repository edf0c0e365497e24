/** husk's shim that stands by for the next container of Docker 26, which sets its network up between its creation and its start. */
import { readlinkSync } from "node:fs";
import { expect } from "vitest";
import { shimFolder } from "../harness/containerd.ts";
import { test as base } from "../harness/engines.ts";
import { isHusk } from "../harness/runtime.ts";
import { StandingShims, warmEnvironment } from "../harness/standing-shims.ts";

const test = base.override("generation", "newer").extend("docker", { scope: "file" }, async ({ engines }) => {
  await engines.containerd(shimFolder(engines, "containerd-shim-husk-v2"), undefined, warmEnvironment(engines));
  return engines.docker(isHusk ? "io.containerd.husk.v2" : "io.containerd.runc.v2");
});

test.runIf(isHusk)("docker run is served by it, with Docker's network", async ({ docker, engines }) => {
  await using standing = await StandingShims.ready(engines, () => docker.ok("run", "--rm", engines.image, "true"));
  const { pid } = await standing.untilOneWaits();
  const id = (await docker.ok("run", "--detach", engines.image, "sh", "-c", "echo page >index.html; exec httpd -f -p 80")).trim();
  try {
    expect(readlinkSync(`/proc/${pid}/cwd`)).toMatch(new RegExp(`/${id}$`));
    const address = (await docker.ok("inspect", "--format", "{{.NetworkSettings.IPAddress}}", id)).trim();
    const fetch = `until wget -q -O - http://${address}/index.html 2>/dev/null; do :; done`;
    await standing.untilOneWaits();
    expect(await docker.ok("run", "--rm", engines.image, "sh", "-c", fetch)).toBe("page\n");
    expect(await docker.run("exec", id, "sh", "-c", "exit 5")).toMatchObject({ status: 5 });
  } finally {
    await docker.ok("rm", "--force", id);
  }
});
