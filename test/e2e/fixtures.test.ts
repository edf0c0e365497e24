/** The config.json that Docker on Ubuntu, Podman on Fedora and a kubelet write, with nothing changed but the paths of their hosts: they must run. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { parseJson, stringifyJson } from "../../src/oci/json.ts";
import { test } from "../harness/host.ts";
import { isHusk } from "../harness/runtime.ts";

interface Config {
  process: { args: string[]; cwd: string; terminal?: boolean; apparmorProfile?: string };
  root: { path: string };
  mounts: { destination: string; type?: string; source?: string; options?: string[] }[];
  hooks?: Record<string, { path: string; args?: string[] }[]>;
  linux: { cgroupsPath?: string; namespaces: { type: string; path?: string }[]; resources?: { memory?: object } };
}

test.runIf(isHusk).for(["docker-ubuntu", "docker-privileged", "podman-fedora", "kubelet-sandbox", "kubelet-container"])(
  "%s runs",
  async (name, { host }) => {
    const config = parseJson(readFileSync(new URL(`../../src/oci/fixtures/${name}.json`, import.meta.url), "utf8"), name) as Config;
    const bundle = host.bundle();
    config.root.path = "rootfs";
    config.process = {
      ...config.process,
      args: ["/bin/sh", "-c", "id -u; sed -n 's/^Seccomp:[[:space:]]*//p' /proc/self/status; ls /dev/shm; pwd"],
    };
    config.process.terminal = false;
    config.linux.cgroupsPath = "/husk-test/fixture";
    // What the engines' hosts had: files and folders of the test's own take their places.
    for (const [index, mount] of config.mounts.entries()) {
      if (mount.type !== "bind" && !mount.options?.some((option) => option.endsWith("bind"))) continue;
      const isFolder = /shm|volumes|srv|share|cache|secrets/.test(`${mount.source} ${mount.destination}`);
      mount.source = join(host.folder, `source${index}`);
      if (isFolder) mkdirSync(mount.source);
      else writeFileSync(mount.source, `${mount.destination}\n`);
    }
    for (const hook of Object.values(config.hooks ?? {}).flat()) Object.assign(hook, { path: "/bin/true", args: ["true"] });
    // A kubelet's containers join their pod's namespaces; this one is alone.
    for (const namespace of config.linux.namespaces) delete namespace.path;
    for (const folder of ["usr", "srv", "var"]) mkdirSync(join(bundle.rootfs, folder), { recursive: true });
    writeFileSync(join(bundle.path, "config.json"), stringifyJson(config));
    const { status, stdout, stderr } = await host.run(bundle);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const [uid = "", seccomp, ...rest] = stdout.trimEnd().split("\n");
    expect(uid).toMatch(/^\d+$/);
    expect(seccomp).toBe(name === "docker-privileged" || !("seccomp" in config.linux) ? "0" : "2");
    expect(rest).toEqual([config.process.cwd]);
  },
);
