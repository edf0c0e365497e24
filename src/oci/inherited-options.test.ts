import { expect, test } from "vitest";
import { inheritedOptions } from "./inherited-options.ts";

const host = ["ro", "nosuid", "nodev", "noexec", "noatime", "nosymfollow"];

function inherited(options: readonly string[], { users = false, below = false } = {}): string[] {
  return inheritedOptions({ destination: "/x", type: "bind", source: "/s", options }, host, users, below);
}

test("a bind mount without flags of its own has all of the host's mount", () => {
  expect(inherited(["rbind", "rprivate", "rnoexec"])).toEqual(host);
  expect(inheritedOptions({ destination: "/x", type: "bind", source: "/s" }, host, false, false)).toEqual(host);
});

test("flags of its own replace the host's, but for one that is read-only, and the times of access where nothing is said of them", () => {
  expect(inherited(["bind", "dev"])).toEqual(["ro", "noatime"]);
  expect(inherited(["bind", "rw", "atime"])).toEqual(["ro", "noatime"]);
  expect(inherited(["bind", "relatime"])).toEqual(["ro"]);
});

test("in a user namespace the host's hold whatever is asked, as the kernel has it", () => {
  expect(inherited(["bind", "rw", "dev", "exec", "suid", "relatime"], { users: true })).toEqual([
    "ro",
    "nosuid",
    "nodev",
    "noexec",
    "noatime",
  ]);
});

test("read-only is not said of more than the host's mount itself", () => {
  expect(inherited(["rbind"], { below: true })).toEqual(host.slice(1));
});
