import { describe, expect, it } from "vitest";
import { cgroupOf } from "./cgroups-path.ts";

describe("cgroupOf", () => {
  it("is a path seen from the root, and the id, as with runc, without one", () => {
    expect(cgroupOf("/a/b", "box", false, true)).toBe("/a/b");
    expect(cgroupOf("a/../b", "box", false, true)).toBe("/b");
    expect(cgroupOf(undefined, "box", false, true)).toBe("/box");
    expect(cgroupOf("", "box", undefined, true)).toBe("/box");
    expect(cgroupOf("system.slice:docker:box", "box", false, true)).toBe("/system.slice:docker:box");
  });

  it("is a scope for systemd", () => {
    expect(cgroupOf("machine.slice:libpod:0123", "box", true, true)).toEqual({ unit: "libpod-0123.scope", slice: "machine.slice" });
    expect(cgroupOf("a-b.slice::0123", "box", true, true)).toEqual({ unit: "0123.scope", slice: "a-b.slice" });
    expect(cgroupOf(":docker:0123", "box", true, true)).toEqual({ unit: "docker-0123.scope", slice: "system.slice" });
    expect(cgroupOf(undefined, "box", true, true)).toEqual({ unit: "husk-box.scope", slice: "system.slice" });
  });

  it("is a scope for who is not told, where the path has the form for one", () => {
    const scope = { unit: "cri-containerd-0123.scope", slice: "kubepods-besteffort-pod7.slice" };
    expect(cgroupOf("kubepods-besteffort-pod7.slice:cri-containerd:0123", "box", undefined, true)).toEqual(scope);
    expect(cgroupOf("/kubepods/besteffort/pod7/0123", "box", undefined, true)).toBe("/kubepods/besteffort/pod7/0123");
    expect(cgroupOf("a:b:c", "box", undefined, true)).toBe("/a:b:c");
    // Without systemd it can only be a path.
    expect(cgroupOf("test.slice:cri-containerd:0123", "box", undefined, false)).toBe("/test.slice:cri-containerd:0123");
    expect(cgroupOf("test.slice:cri-containerd:0123", "box", true, false)).toMatchObject({ slice: "test.slice" });
  });

  it.each([
    ["/a/b", 'config.json: linux.cgroupsPath: "/a/b": with --systemd-cgroup, expected slice:prefix:name'],
    ["a.slice:b:c:d", 'config.json: linux.cgroupsPath: "a.slice:b:c:d": with --systemd-cgroup, expected slice:prefix:name'],
    ["a.slice:b:", 'config.json: linux.cgroupsPath: "a.slice:b:": with --systemd-cgroup, expected slice:prefix:name'],
    ["a:b:c", 'config.json: linux.cgroupsPath: "a:b:c": expected the name of a slice, got "a"'],
    ["/a.slice:b:c", 'config.json: linux.cgroupsPath: "/a.slice:b:c": expected the name of a slice, got "/a.slice"'],
    ["a.slice:b:c/d", 'config.json: linux.cgroupsPath: "a.slice:b:c/d": systemd takes no unit of the name "b-c/d.scope"'],
  ])("refuses %j for systemd", (path, message) => {
    expect(() => cgroupOf(path, "box", true, true)).toThrow(message);
  });
});
