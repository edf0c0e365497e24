import { describe, expect, test } from "vitest";
import { HuskError } from "../errors.ts";
import { type ConfigFiles, describeConfig, type Flag, type LoadOptions, loadConfig, type SettingKey } from "./config.ts";

const MIB = 1024 ** 2;

/** A disk that holds these files. */
function disk(texts: Readonly<Record<string, string>>): ConfigFiles {
  return {
    readText: (path) => texts[path],
    list: (folder) =>
      Object.keys(texts)
        .filter((path) => path.startsWith(`${folder}/`))
        .map((path) => path.slice(folder.length + 1)),
  };
}

const load = (texts: Record<string, string> = {}, options: Partial<LoadOptions> = {}) =>
  loadConfig({ env: {}, files: disk(texts), ...options });

async function problem(texts: Record<string, string>, options: Partial<LoadOptions> = {}): Promise<string> {
  const error: unknown = await load(texts, options).catch((caught: unknown) => caught);
  if (!(error instanceof HuskError)) throw new Error("no HuskError", { cause: error });
  expect(error.code).toBe("invalid-argument");
  return error.hint === undefined ? error.message : `${error.message} (${error.hint})`;
}

describe("where values come from", () => {
  test("the defaults, where nobody says anything", async () => {
    const { config, sources } = await load();
    expect(config).toEqual({
      vm: {
        accel: "auto",
        requireKvm: false,
        kernel: "auto",
        qemu: "auto",
        virtiofsd: "auto",
        channel: "auto",
        vcpus: 1,
        memory: 1024 * MIB,
        maxVcpus: 8,
        maxMemory: 64 * 1024 * MIB,
        memoryOverhead: 128 * MIB,
        hostOverhead: 384 * MIB,
        networkPorts: 4,
        tcgTbSize: 128 * MIB,
      },
      template: { enabled: true, folder: "auto", most: 8, mostBytes: 4096 * MIB, warmMs: 30_000, standby: true, tenant: "shared" },
      log: { level: "info", guestConsoleBytes: 256 * 1024 },
      deadlines: { bootMs: 60_000, callMs: 30_000, stopMs: 5_000 },
      allow: { vmSection: false, annotations: [] },
    });
    expect(new Set(sources.values())).toEqual(new Set(["default"]));
  });

  test("the file, then the drop-ins in the order of their names, then flags: the last word counts, key by key", async () => {
    const loaded = await load(
      {
        "/etc/husk/config.toml": '[vm]\nvcpus = 2\nmemory = "2GiB"\nkernel = "own"\n[deadlines]\nboot_s = 5\n',
        "/etc/husk/config.d/20-b.toml": '[vm]\nmemory = "3GiB"\n',
        "/etc/husk/config.d/10-a.toml": '[vm]\nmemory = "4GiB"\nkernel = "debian"\n',
        "/etc/husk/config.d/30-c.toml.bak": "nonsense",
        "/etc/husk/config.d/.40.toml": "nonsense",
      },
      { flags: { "vm.vcpus": { name: "--vcpus", text: "3" } } },
    );
    expect(loaded.config.vm).toMatchObject({ vcpus: 3, memory: 3072 * MIB, kernel: "debian" });
    expect(loaded.config.deadlines.bootMs).toBe(5000);
    const sources = Object.fromEntries(describeConfig(loaded).map(({ key, source }) => [key, source]));
    expect(sources).toMatchObject({
      "vm.vcpus": "--vcpus",
      "vm.memory": "/etc/husk/config.d/20-b.toml",
      "vm.kernel": "/etc/husk/config.d/10-a.toml",
      "deadlines.boot_s": "/etc/husk/config.toml",
      "vm.accel": "default",
    });
  });

  test("HUSK_CONFIG takes the place of all files", async () => {
    const texts = { "/etc/husk/config.toml": "[vm]\nvcpus = 2\n", "/etc/husk/config.d/1.toml": "[vm]\nvcpus = 3\n", "/mine": "" };
    const { config, sources } = await load({ ...texts, "/mine": 'log.level = "debug"' }, { env: { HUSK_CONFIG: "/mine" } });
    expect(config.vm.vcpus).toBe(1);
    expect(config.log.level).toBe("debug");
    expect(sources.get("log.level")).toBe("/mine");
    expect((await load(texts, { env: { HUSK_CONFIG: "" } })).config.vm.vcpus).toBe(3);
    expect(await problem(texts, { env: { HUSK_CONFIG: "/nowhere" } })).toBe("HUSK_CONFIG is /nowhere, which does not exist");
  });
});

describe("what is wrong is named, with its file and key", () => {
  test.each([
    ["[vm]\nmemroy = 1", "vm.memroy: there is no such setting (did you mean vm.memory?)"],
    ["[mv]\n", "mv: there is no such setting (did you mean vm?)"],
    ["[storage]\n", "storage: there is no such setting (`husk config` lists them all)"],
    ["vm = 1", "vm: expected a table, [vm]"],
    ["[[vm]]\nvcpus = 1", "vm: expected a table, [vm]"],
    ["vm = 1979-05-27", "vm: expected a table, [vm]"],
    ["[vm.memory]\nx = 1", 'vm.memory: expected a size from "64MiB" to "4096GiB" in steps of 1MiB, got an object'],
    ["[vm]\nmemory = 512", 'vm.memory: expected a size from "64MiB" to "4096GiB" in steps of 1MiB, got 512'],
    ['[vm]\nmemory = "512M"', 'vm.memory: expected a size from "64MiB" to "4096GiB" in steps of 1MiB, got "512M"'],
    ['[vm]\nmemory = "1MiB"', 'vm.memory: expected a size from "64MiB" to "4096GiB" in steps of 1MiB, got "1MiB"'],
    ['[vm]\nmemory = "131073KiB"', 'vm.memory: expected a size from "64MiB" to "4096GiB" in steps of 1MiB, got "131073KiB"'],
    ["[vm]\nvcpus = 0", "vm.vcpus: expected a whole number from 1 to 240, got 0"],
    ["[vm]\nvcpus = 1.5", "vm.vcpus: expected a whole number from 1 to 240, got 1.5"],
    ['[vm]\nvcpus = "1"', 'vm.vcpus: expected a whole number from 1 to 240, got "1"'],
    ['[vm]\naccel = "xen"', 'vm.accel: expected one of "auto", "kvm", "tcg", got "xen"'],
    ["[vm]\nrequire_kvm = 1", "vm.require_kvm: expected true or false, got 1"],
    ['[vm]\nkernel = "fedora"', 'vm.kernel: expected "auto", "own", "debian", or an absolute path, got "fedora"'],
    ['[vm]\nqemu = "qemu"', 'vm.qemu: expected "auto", or an absolute path, got "qemu"'],
    [
      '[allow]\nannotations = ["io.husk.memory", "x"]',
      'allow.annotations[1]: expected one of "io.husk.vcpus", "io.husk.memory", "io.husk.tenant", got "x"',
    ],
    [
      '[template]\ntenant = "a b"',
      'template.tenant: expected "shared", "namespace", or a name of up to 63 letters, digits and ._-, got "a b"',
    ],
    ["[deadlines]\nboot_s = 0", "deadlines.boot_s: expected a whole number from 1 to 3600, got 0"],
    ["[vm]\nvcpus = \n", "line 2, column 9: invalid value"],
    ["[vm]\nvcpus = 1\nvcpus = 2\n", "line 3, column 1: trying to redefine an already defined table or value"],
    ["[vm\n", "line 1, column 4: illegal character in key"],
  ])("%j: %s", async (text, expected) => {
    expect(await problem({ "/etc/husk/config.toml": text })).toBe(`/etc/husk/config.toml: ${expected}`);
  });

  test("in flags too", async () => {
    const flags = (key: string, text: string) => ({ flags: { [key as SettingKey]: { name: "--flag", text } satisfies Flag } });
    expect(await problem({}, flags("vm.accel", "fast"))).toBe('--flag: vm.accel: expected one of "auto", "kvm", "tcg", got "fast"');
    expect(await problem({}, flags("vm.vcpus", "two"))).toBe('--flag: vm.vcpus: expected a whole number from 1 to 240, got "two"');
    expect(await problem({}, flags("vm.require_kvm", "yes"))).toBe('--flag: vm.require_kvm: expected true or false, got "yes"');
    expect(await problem({}, flags("vm.vcpu", "2"))).toBe("--flag: vm.vcpu: there is no such setting (did you mean vm.vcpus?)");
  });

  test("settings that contradict each other", async () => {
    const text = "[vm]\nrequire_kvm = true\n";
    const options = { flags: { "vm.accel": { name: "--accel", text: "tcg" } } };
    expect(await problem({ "/etc/husk/config.toml": text }, options)).toBe(
      'vm.accel = "tcg" contradicts vm.require_kvm = true: --accel says tcg, /etc/husk/config.toml says require_kvm',
    );
    expect((await load({ "/etc/husk/config.toml": text })).config.vm.requireKvm).toBe(true);
  });
});

describe("describeConfig", () => {
  test("prints every value in a way that is read back as the same", async () => {
    const texts = {
      "/etc/husk/config.toml":
        '[vm]\naccel = "kvm"\nrequire_kvm = true\nmemory = "1536MiB"\nqemu = "/opt/q\\"u"\n[log]\nguest_console_bytes = "5KiB"\n' +
        '[deadlines]\nboot_s = 7\n[allow]\nannotations = ["io.husk.memory"]\n',
    };
    const rows = describeConfig(await load(texts));
    const again = rows.map(({ key, value }) => `${key} = ${value}\n`).join("");
    expect(describeConfig(await load({ "/etc/husk/config.toml": again })).map(({ key, value }) => [key, value])).toEqual(
      rows.map(({ key, value }) => [key, value]),
    );
    expect(rows.find(({ key }) => key === "vm.memory")).toMatchObject({ value: '"1536MiB"', default: '"1GiB"' });
    expect(rows.find(({ key }) => key === "vm.qemu")).toMatchObject({ value: '"/opt/q\\"u"' });
  });

  test("takes every flag's text for what TOML would have", async () => {
    const texts: [SettingKey, string][] = [
      ["vm.require_kvm", "true"],
      ["vm.memory", "2GiB"],
      ["vm.vcpus", "2"],
      ["vm.kernel", "/boot"],
      ["deadlines.stop_s", "9"],
      ["allow.annotations", "io.husk.memory,io.husk.vcpus"],
    ];
    const flags = Object.fromEntries(texts.map(([key, text]) => [key, { name: "-c", text }]));
    const { config } = await load({}, { flags });
    expect(config.vm).toMatchObject({ requireKvm: true, memory: 2048 * MIB, vcpus: 2, kernel: "/boot" });
    expect(config.deadlines.stopMs).toBe(9000);
    expect(config.allow.annotations).toEqual(["io.husk.memory", "io.husk.vcpus"]);
  });

  test("documents every setting in sentences", async () => {
    for (const { key, doc, kind } of describeConfig(await load())) {
      expect(doc, key).toMatch(/^[A-Z].*\.$/s);
      expect(kind, key).not.toBe("");
    }
  });
});
