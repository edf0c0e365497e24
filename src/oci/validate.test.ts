import { describe, expect, test } from "vitest";
import { HuskError } from "../errors.ts";
import { parseProcess, parseResources, parseSpec } from "./validate.ts";

const minimal = { ociVersion: "1.2.0", process: { user: { uid: 0, gid: 0 }, args: ["sh"], cwd: "/" }, root: { path: "rootfs" } };

/** The minimal specification with the value at a path replaced. */
function having(path: string, value: unknown): string {
  const document: Record<string, unknown> = structuredClone(minimal);
  const steps = path.split(".");
  const last = steps.pop() ?? "";
  let at = document;
  for (const step of steps) at = (at[step] ??= {}) as Record<string, unknown>;
  at[last] = value;
  return JSON.stringify(document);
}

function problem(action: () => unknown): string {
  try {
    action();
    return "no error";
  } catch (error) {
    if (!(error instanceof HuskError)) throw error;
    expect(error.code).toBe("invalid-argument");
    return error.message;
  }
}

test("the smallest specification", () => {
  expect(parseSpec(JSON.stringify(minimal))).toEqual({ value: minimal, unknown: [] });
});

test("a user or group that is not given is root's", () => {
  const text = JSON.stringify({ ...minimal, process: { ...minimal.process, user: { uid: 5 } } });
  expect(parseSpec(text).value.process.user).toEqual({ uid: 5, gid: 0 });
  expect(parseProcess('{"args":["sh"],"cwd":"/"}', "p.json").value.user).toEqual({ uid: 0, gid: 0 });
});

describe("each wrong field is named", () => {
  test.each<[string, unknown, string | RegExp]>([
    ["ociVersion", undefined, "ociVersion: expected a string, got nothing"],
    ["ociVersion", "2.0.0", 'ociVersion: expected a version 1.x.y, got "2.0.0"'],
    ["ociVersion", "1.2", 'ociVersion: expected a version 1.x.y, got "1.2"'],
    ["process", undefined, "process: expected an object, got nothing"],
    ["root", undefined, "root: expected an object, got nothing"],
    ["root.path", "", 'root.path: expected a non-empty string, got ""'],
    ["root.readonly", "yes", 'root.readonly: expected true or false, got "yes"'],
    ["process.args", [], "process.args: expected a non-empty list, got an empty list"],
    ["process.args", [5], "process.args[0]: expected a string, got 5"],
    ["process.args", [""], 'process.args[0]: expected a non-empty string, got ""'],
    ["process.args", ["a\0b"], 'process.args[0]: expected a string without a NUL byte, got "a\\u0000b"'],
    ["process.cwd", "tmp", 'process.cwd: expected an absolute path, got "tmp"'],
    ["process.env", [1], "process.env[0]: expected a string, got 1"],
    ["process.user.uid", -1, "process.user.uid: expected a whole number from 0 to 4294967294, got -1"],
    ["process.user.umask", 0o1000, "process.user.umask: expected a whole number from 0 to 511, got 512"],
    ["process.oomScoreAdj", 1001, "process.oomScoreAdj: expected a whole number from -1000 to 1000, got 1001"],
    [
      "process.rlimits",
      [{ type: "RLIMIT_X", soft: 1, hard: 1 }],
      /^process.rlimits\[0\].type: expected one of "RLIMIT_AS", .*, got "RLIMIT_X"$/,
    ],
    [
      "process.rlimits",
      [{ type: "RLIMIT_AS", soft: 2, hard: 1 }],
      "process.rlimits[0]: the soft limit of RLIMIT_AS, 2, is above the hard one, 1",
    ],
    ["process.rlimits", [1, 2].map((soft) => ({ type: "RLIMIT_AS", soft, hard: 2 })), "process.rlimits: RLIMIT_AS is given twice"],
    [
      "process.rlimits",
      [{ type: "RLIMIT_AS", soft: -1, hard: 1 }],
      "process.rlimits[0].soft: expected a whole number of 64 bits, not negative, got -1",
    ],
    ["process.capabilities", ["CAP_KILL"], "process.capabilities: expected an object, got a list"],
    ["mounts", [{ type: "proc" }], "mounts[0].destination: expected a non-empty string, got nothing"],
    ["mounts", [{ destination: "/x", options: "ro" }], 'mounts[0].options: expected a list, got "ro"'],
    ["hostname", "h".repeat(65), "hostname: expected at most 64 bytes, got 65"],
    ["domainname", "é".repeat(33), "domainname: expected at most 64 bytes, got 66"],
    ["hooks.prestart", [{ path: "x" }], 'hooks.prestart[0].path: expected an absolute path, got "x"'],
    ["hooks.poststop", [{ path: "/x", timeout: 0 }], "hooks.poststop[0].timeout: expected a whole number of at least 1, got 0"],
    ["annotations", { a: 1 }, "annotations.a: expected a string, got 1"],
    ["annotations", { "com.example/a": 1 }, 'annotations["com.example/a"]: expected a string, got 1'],
    ["linux.namespaces", [{ type: "net" }], /^linux.namespaces\[0\].type: expected one of "pid", "network", .*, got "net"$/],
    ["linux.namespaces", [{ type: "pid" }, { type: "pid" }], "linux.namespaces: the pid namespace is given twice"],
    ["linux.namespaces", [{ type: "pid", path: "x" }], 'linux.namespaces[0].path: expected an absolute path, got "x"'],
    ["linux.devices", [{ path: "/dev/x", type: "c" }], "linux.devices[0]: expected a major and a minor number"],
    ["linux.resources.memory.limit", "1G", 'linux.resources.memory.limit: expected a whole number of 64 bits, got "1G"'],
    ["linux.resources.memory.limit", 2 ** 64, "linux.resources.memory.limit: expected a whole number of 64 bits, got 18446744073709552000"],
    ["linux.resources.cpu.cpus", "0-", 'linux.resources.cpu.cpus: expected a list such as "0-3,7", got "0-"'],
    ["linux.resources.devices", [{ access: "rwm" }], "linux.resources.devices[0].allow: expected true or false, got nothing"],
    [
      "linux.resources.devices",
      [{ allow: true, access: "rx" }],
      'linux.resources.devices[0].access: expected some of the letters r, w and m, got "rx"',
    ],
    [
      "linux.resources.unified",
      { "../x": "1" },
      'linux.resources.unified: expected names of cgroup v2 files such as "memory.high", got "../x"',
    ],
    ["linux.seccomp", {}, /^linux.seccomp.defaultAction: expected one of .*, got nothing$/],
    [
      "linux.seccomp",
      { defaultAction: "SCMP_ACT_ALLOW", syscalls: [{ names: [], action: "SCMP_ACT_LOG" }] },
      /names: expected a non-empty list, got an empty list$/,
    ],
    ["linux.rootfsPropagation", "up", /^linux.rootfsPropagation: expected one of .*, got "up"$/],
    ["linux.timeOffsets", { realtime: { secs: 1 } }, 'linux.timeOffsets: expected the clocks "monotonic" and "boottime", got "realtime"'],
    ["linux.personality", { domain: "BSD" }, 'linux.personality.domain: expected one of "LINUX", "LINUX32", got "BSD"'],
    ["vm.kernel", { parameters: [] }, "vm.kernel.path: expected an absolute path, got nothing"],
  ])("%s = %j", (path, value, expected) => {
    const text = problem(() => parseSpec(having(path, value)));
    expect(text).toMatch(/^config\.json: /);
    const [, rest = ""] = /^config\.json: (.*)$/s.exec(text) ?? [];
    if (typeof expected === "string") expect(rest).toBe(expected);
    else expect(rest).toMatch(expected);
  });

  test("broken JSON, by line and column", () => {
    expect(problem(() => parseSpec('{\n  "ociVersion": "1.2.0",\n}'))).toBe(
      'config.json: line 3, column 1: expected a property\'s name in double quotes, got "}"',
    );
  });

  test("in the documents of exec and update, by their names", () => {
    expect(problem(() => parseProcess('{"user":{"uid":0,"gid":0},"args":["sh"]}', "/tmp/p.json"))).toBe(
      "/tmp/p.json: cwd: expected an absolute path, got nothing",
    );
    expect(problem(() => parseResources('{"pids":{"limit":"x"}}', "standard input"))).toBe(
      'standard input: pids.limit: expected a whole number of 64 bits, got "x"',
    );
  });
});

describe("what the specification lets pass", () => {
  test("unknown properties, which are listed", () => {
    const { value, unknown } = parseSpec(having("linux.colour", { red: 1 }));
    expect(value.linux).toEqual({});
    expect(unknown).toEqual(["linux.colour"]);
  });

  test("null for what is absent, as programs in Go write it", () => {
    expect(parseSpec(having("mounts", null)).value).toEqual(minimal);
    expect(parseSpec(having("linux.resources", { memory: { swappiness: null } })).value.linux).toEqual({ resources: { memory: {} } });
  });

  test("versions 1.x with what may follow", () => {
    for (const version of ["1.0.0", "1.0.2-dev", "1.2.1", "1.3.0+build"])
      expect(parseSpec(having("ociVersion", version)).value.ociVersion).toBe(version);
  });

  test("limits that no double holds", () => {
    const text = JSON.stringify(minimal).replace('"cwd"', '"rlimits":[{"type":"RLIMIT_CORE","soft":0,"hard":18446744073709551615}],"cwd"');
    expect(parseSpec(text).value.process.rlimits).toEqual([{ type: "RLIMIT_CORE", soft: 0, hard: 2n ** 64n - 1n }]);
  });

  test("empty arguments behind the program", () => {
    expect(parseSpec(having("process.args", ["echo", ""])).value.process.args).toEqual(["echo", ""]);
  });
});
