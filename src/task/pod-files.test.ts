import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Bundle } from "../oci/bundle.ts";
import { defaultSpec } from "../oci/default-spec.ts";
import type { Mount } from "../oci/types.ts";
import { withPodFiles, writePodFiles } from "./pod-files.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "husk-test-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const dns = { servers: ["10.0.0.10", "fd00::a"], searches: ["ns.svc.cluster.local", "cluster.local"], options: ["ndots:5", "edns0"] };

test("a pod's files are what the kubelet says, and the host's hosts", async () => {
  const mounts = await writePodFiles(join(folder, "etc"), { hostname: "web-0", dns });
  expect(mounts.map(({ destination }) => destination)).toEqual(["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]);
  expect(mounts.map(({ source = "" }) => readFileSync(source, "utf8"))).toEqual([
    "web-0\n",
    readFileSync("/etc/hosts", "utf8"),
    "search ns.svc.cluster.local cluster.local\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5 edns0\n",
  ]);
  expect(mounts.map(({ source = "" }) => statSync(source).mode & 0o777)).toEqual([0o644, 0o644, 0o644]);
});

test("names are resolved as the host does where nobody says how, and not at all where nobody is to", async () => {
  const [, , asHost] = await writePodFiles(folder, { hostname: "x", dns: undefined });
  expect(readFileSync(asHost?.source ?? "", "utf8")).toBe(readFileSync("/etc/resolv.conf", "utf8"));
  const [, , none] = await writePodFiles(folder, { hostname: "x", dns: { servers: [], searches: [], options: [] } });
  expect(readFileSync(none?.source ?? "", "utf8")).toBe("");
});

test("a container's own mounts stay in their places, but for folders, and a read-only root has read-only files", () => {
  const files: readonly Mount[] = [
    { destination: "/etc/hosts", type: "bind", source: "/pod/hosts", options: ["rbind"] },
    { destination: "/etc/resolv.conf", type: "bind", source: "/pod/resolv.conf", options: ["rbind"] },
  ];
  const own: readonly Mount[] = [{ destination: "etc/hosts", type: "bind", source: "/kubelet/hosts" }];
  const bundle: Bundle = { path: "/b", rootfs: "/b/rootfs", unknown: [], spec: { ...defaultSpec, root: { path: "rootfs" }, mounts: own } };
  expect(withPodFiles(bundle, files).spec.mounts).toEqual([...own, { ...files[1], options: ["rbind", "rw"] }]);
  const readonly = { ...bundle, spec: { ...bundle.spec, root: { path: "rootfs", readonly: true } } };
  expect(withPodFiles(readonly, files).spec.mounts?.[1]).toEqual({ ...files[1], options: ["rbind", "ro"] });
  expect(withPodFiles(bundle, [])).toBe(bundle);
  const instead: Mount = { destination: "/etc/resolv.conf", type: "bind", source: folder, options: ["rbind"] };
  const covered = { ...bundle, spec: { ...bundle.spec, mounts: [...own, instead] } };
  expect(withPodFiles(covered, files).spec.mounts).toEqual([...own, { ...files[1], options: ["rbind", "rw"] }]);
});
