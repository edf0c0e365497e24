/**
 * Every setting, once: `husk config`, the documentation and the types all come from this table. Names are those of the TOML files.
 */
import { anyOf, choice, type Setting, seconds, size, type ValueOf, wholeNumber, wordOrName, wordOrPath, yesOrNo } from "./setting.ts";

const vm = {
  accel: choice(
    ["auto", "kvm", "tcg"],
    "auto",
    "How the guest's instructions run: by the processor (kvm) or by emulation (tcg). auto takes KVM where it really works. QEMU promises isolation under KVM only.",
  ),
  require_kvm: yesOrNo(false, "Refuse to run anything without KVM."),
  kernel: wordOrPath(
    ["auto", "own", "debian"],
    "The guest's kernel: husk's own, Debian's, or a folder that holds kernel and initramfs. auto takes husk's own where it was built.",
  ),
  qemu: wordOrPath(["auto"], "The qemu-system-x86_64 to run. auto looks in PATH and the standard folders."),
  virtiofsd: wordOrPath(["auto"], "The virtiofsd that shows the host's folders to the guest. auto looks where distributions keep it."),
  channel: choice(
    ["auto", "vsock", "serial"],
    "auto",
    "How the host talks to the agent in the guest: vsock, or a virtio serial port. auto takes vsock where /dev/vhost-vsock is.",
  ),
  vcpus: wholeNumber(
    1,
    240,
    1,
    "Virtual processors of a sandbox whose bundle sets no CPU quota. One, as cheap as it gets: each costs threads and boot time.",
  ),
  memory: size(
    "64MiB",
    "4096GiB",
    "1GiB",
    "Memory for a container whose bundle sets no limit. Python and Node start in a tenth of it, and a small build (npm, pip, cc, cargo) fits, which 512MiB " +
      "is too tight for. What the guest does not touch costs the host nothing but the 16 MiB in which the guest's kernel keeps account of 1 GiB.",
    "1MiB",
  ),
  max_vcpus: wholeNumber(
    1,
    240,
    8,
    "How many virtual processors a running sandbox can grow to, where a container's CPU quota rises or another container comes; the host's number bounds it. " +
      "Each that could come costs the guest 0.2 MiB and its boot some 0.2 %, and the host nothing. At vm.vcpus or below, sandboxes stay as they are made.",
  ),
  max_memory: size(
    "64MiB",
    "512GiB",
    "64GiB",
    "What a running sandbox's memory can grow to, where a container's limit rises or another container comes; the host's memory bounds it. What could come " +
      "costs nothing until it does. At vm.memory's size or below, sandboxes stay as they are made.",
    "1MiB",
  ),
  memory_overhead: size(
    "32MiB",
    "16GiB",
    "128MiB",
    "Memory of the guest's own, its kernel and agent, on top of the container's limit, so that the container can use all of that. Fits Debian's kernel, the larger one.",
    "1MiB",
  ),
  host_overhead: size(
    "64MiB",
    "16GiB",
    "384MiB",
    "What QEMU and virtiofsd may take on the host beside the guest's memory, as the limit of the sandbox's cgroup: under TCG, most of it is translated code (tcg_tb_size).",
    "1MiB",
  ),
  network_ports: wholeNumber(
    0,
    28,
    4,
    "How many network interfaces a sandbox can get: engines make them after the machine, and each needs a port that was there from the start. " +
      "Docker and Podman make one for each network.",
  ),
  tcg_tb_size: size(
    "8MiB",
    "2GiB",
    "128MiB",
    "Under TCG, the buffer for translated code. QEMU's own default, 1GiB, lets every sandbox grow by as much.",
    "1MiB",
  ),
} satisfies Record<string, Setting<unknown>>;

const template = {
  enabled: yesOrNo(
    true,
    "Clone sandboxes from templates, booted and paused machines, instead of booting each. The first sandbox of a kind makes its template, which takes some " +
      "seconds once.",
  ),
  folder: wordOrPath(
    ["auto"],
    "Where templates are kept, a file of the guest's memory each. It must belong to husk's user alone. auto is /var/lib/husk/templates, or a folder of " +
      "the user's cache.",
  ),
  most: wholeNumber(
    1,
    1000,
    8,
    "How many templates are kept, those of all tenants together: the least recently used goes for a new one. Where as many were used within ten minutes, a " +
      "sandbox that would need another boots.",
  ),
  most_bytes: size(
    "64MiB",
    "4096GiB",
    "4GiB",
    "What all templates may take on the disk. One takes 40 to 120 MiB: what a booted guest has touched. Likewise, the least recently used goes.",
    "1MiB",
  ),
  warm_s: seconds(
    0,
    86_400,
    30,
    "A template that is used again within so many seconds is kept warm for as many: its machine stands ready in a process, some 150 MB, that new sandboxes " +
      "are copied from, in about half the time. It ends by itself. 0: never. Only under TCG.",
  ),
  standby: yesOrNo(
    true,
    "While a template is kept warm, a sandbox of it stands by for the next container of the command line that has a network namespace of its own, and is " +
      "replaced when that has begun; another one for those whose root is an image, and one for the next task of containerd, where there are any. Some 60 MB each, and the processor time of a start.",
  ),
  tenant: wordOrName(
    ["shared", "namespace"],
    "Whose the templates are. shared: all sandboxes of a kind are cloned from the same one. namespace: each namespace of Kubernetes, or else of containerd, has " +
      "templates of its own; containers of the command line share. A name: this husk's sandboxes have their own. Clones of one template have the same layout " +
      "of the kernel's memory, which tenants should not know of each other; each tenant costs the making of its templates and their room.",
  ),
} satisfies Record<string, Setting<unknown>>;

const log = {
  level: choice(["error", "warn", "info", "debug"], "info", "What is logged: this level and those before it."),
  guest_console_bytes: size(
    "4KiB",
    "64MiB",
    "256KiB",
    "How much of the guest's console is kept for `husk logs --guest` and for error messages.",
  ),
} satisfies Record<string, Setting<unknown>>;

const deadlines = {
  boot_s: seconds(
    1,
    3600,
    60,
    "Seconds from QEMU's start to the agent's first answer. Debian's kernel takes about 2 under TCG; the rest is for loaded machines.",
  ),
  call_s: seconds(1, 3600, 30, "Seconds for any other answer of the agent."),
  stop_s: seconds(1, 600, 5, "Seconds for the guest to power itself off, before QEMU is killed."),
} satisfies Record<string, Setting<unknown>>;

const allow = {
  vm_section: yesOrNo(
    false,
    "Let bundles choose QEMU and the kernel by the specification's vm section: whoever writes a bundle runs programs as root then.",
  ),
  annotations: anyOf(
    ["io.husk.vcpus", "io.husk.memory", "io.husk.tenant"],
    "The annotations of husk's own that bundles may use, to choose the size of the virtual machine, and whose templates it is cloned from.",
  ),
} satisfies Record<string, Setting<unknown>>;

export const settings = { vm, template, log, deadlines, allow };

type Settings = typeof settings;

/** The configuration: every setting's value. Sizes are bytes; a time, whose setting's name ends with `_s`, is in milliseconds. */
export type Config = {
  readonly [S in keyof Settings]: { readonly [K in keyof Settings[S] as ConfigName<Extract<K, string>>]: ValueOf<Settings[S][K]> };
};

type ConfigName<K extends string> = K extends `${infer Stem}_s` ? `${CamelCase<Stem>}Ms` : CamelCase<K>;
type CamelCase<K extends string> = K extends `${infer Head}_${infer Tail}` ? `${Head}${Capitalize<CamelCase<Tail>>}` : K;

/** The name in Config of a setting: `memory_overhead` is memoryOverhead, `boot_s` is bootMs. */
export function configName(name: string): string {
  return name.replace(/_s$/, "_ms").replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** Such as "vm.memory". */
export type SettingKey = { [S in keyof Settings]: `${S}.${Extract<keyof Settings[S], string>}` }[keyof Settings];
