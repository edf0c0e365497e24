import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { demandFree, findHierarchies, limitCgroups, makeCgroups } from "./cgroups.ts";

const hybrid = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:4 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:39 / /sys/fs/cgroup/net_cls rw,relatime - cgroup cgroup rw,net_cls
`;

test("a hybrid host has each v1 hierarchy that a sandbox uses, and the unified one", () => {
  expect(findHierarchies(hybrid, () => "hugetlb\n")).toEqual([
    { mountPoint: "/sys/fs/cgroup/cpu,cpuacct", version: 1, controllers: ["cpu", "cpuacct"] },
    { mountPoint: "/sys/fs/cgroup/memory", version: 1, controllers: ["memory"] },
    { mountPoint: "/sys/fs/cgroup/systemd", version: 1, controllers: ["name=systemd"] },
    { mountPoint: "/sys/fs/cgroup/unified", version: 2, controllers: ["hugetlb"] },
  ]);
});

test("limits go to the files of the version that a hierarchy has, and nowhere without its controller", () => {
  const root = mkdtempSync(join(tmpdir(), "husk-cgroups-"));
  try {
    const hierarchies = ["memory", "cpu", "unified"].map((name) => {
      mkdirSync(join(root, name, "a"), { recursive: true });
      const [version, controllers] = name === "unified" ? ([2, ["memory", "cpu"]] as const) : ([1, [name]] as const);
      return { mountPoint: join(root, name), version, controllers };
    });
    limitCgroups(hierarchies, "/a", { memoryBytes: 1000, cpuShares: 1024, cpus: "0" });
    const written = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((name) => name.includes("."));
    expect(Object.fromEntries(written.map((name) => [name, readFileSync(join(root, name), "utf8")]))).toEqual({
      "memory/a/memory.limit_in_bytes": "1000",
      "cpu/a/cpu.shares": "1024",
      "unified/a/memory.max": "1000",
      "unified/a/cpu.weight": "39",
    });
  } finally {
    rmSync(root, { recursive: true });
  }
});

test("a path that leaves the hierarchy is refused before anything is made", () => {
  const made: string[] = [];
  const hierarchy = { mountPoint: "/sys/fs/cgroup/none", version: 1, controllers: ["memory"] } as const;
  expect(() => makeCgroups([hierarchy], "/../../etc", (folder) => made.push(folder))).toThrow(
    "linux.cgroupsPath: /../../etc leaves the cgroup hierarchy",
  );
  expect(made).toEqual([]);
});

test("a cgroup that another container makes at the same moment serves both, unless it is to be the container's own", () => {
  const mountPoint = mkdtempSync(join(tmpdir(), "husk-cgroups-"));
  const hierarchy = { mountPoint, version: 1, controllers: ["memory"] } as const;
  const makeWhile = (path: string, busy: string): readonly string[] =>
    makeCgroups([hierarchy], path, (folder) => {
      if (folder === join(mountPoint, busy)) mkdirSync(folder);
    });
  try {
    expect(makeWhile("/pod/a", "pod")).toEqual([join(mountPoint, "pod/a")]);
    expect(() => makeWhile("/pod/b", "pod/b")).toThrow(`cannot make the cgroup ${mountPoint}/pod/b`);
  } finally {
    rmSync(mountPoint, { recursive: true });
  }
});

test("cgroups with processes in them, or below them, and frozen ones are refused; free and missing ones are not", () => {
  const root = mkdtempSync(join(tmpdir(), "husk-cgroups-"));
  try {
    const hierarchies = [
      { mountPoint: join(root, "v1"), version: 1, controllers: ["freezer"] },
      { mountPoint: join(root, "v2"), version: 2, controllers: [] },
    ] as const;
    const write = (file: string, text: string): void => {
      mkdirSync(join(root, file, ".."), { recursive: true });
      writeFileSync(join(root, file), text);
    };
    write("v1/a/cgroup.procs", "");
    write("v1/a/freezer.state", "THAWED\n");
    write("v2/a/cgroup.procs", "");
    write("v2/a/b/cgroup.procs", "");
    write("v2/a/cgroup.freeze", "0\n");
    demandFree(hierarchies, "/a");
    demandFree(hierarchies, "/missing");
    write("v1/tasks", "");
    const isFile = `${root}/v1/tasks is a file of the cgroup hierarchy: name another path in linux.cgroupsPath`;
    expect(() => demandFree(hierarchies, "/tasks")).toThrow(isFile);

    write("v2/a/b/cgroup.procs", "12\n13\n");
    expect(() => demandFree(hierarchies, "/a")).toThrow(`container's cgroup is not empty: 2 process(es) found in ${root}/v2/a`);
    write("v2/a/b/cgroup.procs", "");
    write("v2/a/cgroup.freeze", "1\n");
    expect(() => demandFree(hierarchies, "/a")).toThrow(`container's cgroup unexpectedly frozen: ${root}/v2/a`);
    write("v1/a/freezer.state", "FROZEN\n");
    expect(() => demandFree(hierarchies, "/a")).toThrow(`container's cgroup unexpectedly frozen: ${root}/v1/a`);
  } finally {
    rmSync(root, { recursive: true });
  }
});
