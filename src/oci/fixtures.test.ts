/** What Docker on Ubuntu, Podman on Fedora and a kubelet through containerd write: nobody asked for anything special, so all of it must pass. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { guestSpec } from "./guest-spec.ts";
import { stringifyJson } from "./json.ts";
import { isBind } from "./mounts.ts";
import { vmSize } from "./resources.ts";
import type { Source, Sources } from "./sources.ts";
import { judge, refuseUnsupported } from "./support.ts";
import type { Namespace, Spec } from "./types.ts";
import { parseSpec } from "./validate.ts";

const label = "the label guards the host, which the container does not reach";
const profile = "process.apparmorProfile: the profile guards the host, which the container does not reach";
const noSwap = "the guest has no swap";
const shm = "shared memory is a tmpfs of the guest";

const fixtures: Record<string, { notes: string[]; shares: string[]; vcpus: number; memoryMib: number }> = {
  "docker-ubuntu": {
    notes: [profile, `linux.resources.memory.swap: ${noSwap}`],
    shares: ["/usr/share/nginx/html ro", "/var/cache/nginx", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts"],
    vcpus: 2,
    memoryMib: 512,
  },
  "docker-privileged": {
    notes: [
      `linux.resources.memory.swap: ${noSwap}`,
      "linux.devices: the host's devices stay on the host: /dev/kvm, /dev/nvme0n1, /dev/nvme0n1p1, /dev/snapshot, /dev/tty0 and 1 more",
    ],
    shares: ["/usr/share/nginx/html ro", "/var/cache/nginx", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts"],
    vcpus: 2,
    memoryMib: 512,
  },
  "podman-fedora": {
    notes: [`process.selinuxLabel: ${label}`, `linux.mountLabel: ${label}`, `mounts[7]: ${shm}`],
    shares: ["/etc/resolv.conf", "/etc/hosts", "/run/.containerenv", "/etc/hostname"],
    vcpus: 1,
    memoryMib: 1024,
  },
  "kubelet-sandbox": { notes: [`mounts[5]: ${shm}`], shares: ["/etc/resolv.conf ro"], vcpus: 1, memoryMib: 1024 },
  "kubelet-container": {
    notes: [
      profile,
      `linux.resources.memory.swap: ${noSwap}`,
      `linux.resources.unified["memory.swap.max"]: ${noSwap}`,
      `mounts[12]: ${shm}`,
    ],
    shares: [
      "/etc/config ro",
      "/data",
      "/etc/hosts",
      "/dev/termination-log",
      "/etc/hostname ro",
      "/etc/resolv.conf ro",
      "/var/run/secrets/kubernetes.io/serviceaccount ro",
    ],
    vcpus: 1,
    memoryMib: 128,
  },
};

/** What those engines have at the sources. */
function sourcesOf(spec: Spec): Sources {
  return new Map(
    (spec.mounts ?? []).flatMap((mount, index): [number, Source][] => {
      if (!isBind(mount)) return [];
      const realPath = mount.source ?? "";
      if (realPath.endsWith("/shm")) return [[index, { kind: "folder", realPath, tmpfsBytes: 64 * 1024 ** 2 }]];
      return [[index, { kind: /volumes|\/srv/.test(realPath) ? "folder" : "file", realPath }]];
    }),
  );
}

describe.each(Object.entries(fixtures))("%s", (name, expected) => {
  const text = readFileSync(new URL(`fixtures/${name}.json`, import.meta.url), "utf8");
  const { value: spec, unknown } = parseSpec(text);
  const sources = sourcesOf(spec);
  const guestNamespace = ({ path }: Namespace) => (path?.startsWith("/proc/4026/") ? "sandbox" : undefined);

  test("is read whole", () => {
    expect(unknown).toEqual([]);
    expect(JSON.parse(stringifyJson(spec))).toEqual(JSON.parse(text, (_key, value: unknown) => (value === null ? undefined : value)));
  });

  test("is accepted", () => {
    expect(refuseUnsupported(judge(spec, { bundle: "/b", sources, guestNamespace }))).toEqual(expected.notes);
  });

  test("is translated: its files are shared, and nothing else of the host is named", () => {
    const guest = guestSpec(spec, {
      bundle: "/b",
      sources,
      rootPath: "/guest/root",
      guestPath: ({ index }) => `/guest/${index}`,
      seccomp: null,
      guestNamespace,
    });
    const shared = guest.shares.map(({ index, readonly }) => `${spec.mounts?.[index]?.destination}${readonly ? " ro" : ""}`);
    expect(shared).toEqual(expected.shares);
    expect(stringifyJson({ ...guest.spec, annotations: {} })).not.toMatch(
      /\/var\/lib|\/run\/(containers|containerd|netns)|\/proc\/\d|\/srv/,
    );
  });

  test("gives the VM its size", () => {
    const size = vmSize(spec, {
      vcpus: 1,
      memoryBytes: 1024 ** 3,
      guestOverheadBytes: 0,
      hostOverheadBytes: 0,
      hostCpus: 64,
      hostMemoryBytes: 2 ** 40,
    });
    expect(size).toMatchObject({ vcpus: expected.vcpus, memoryBytes: expected.memoryMib * 1024 ** 2 });
  });
});
