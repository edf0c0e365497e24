/** The verbs that begin a process and stay with it: front starts them, see guest-agent/helper/PROTOCOL.md. */
import { refusedFlag } from "./flags.ts";
import { verb } from "./verb.ts";

const container = {
  bundle: { kind: "text", short: "b", value: "DIR", help: "the bundle: a folder with config.json (default: the current directory)" },
  "console-socket": { kind: "text", value: "PATH", help: "unix socket that is sent the master of the container's terminal" },
  "pid-file": { kind: "text", value: "FILE", help: "where to write the PID that stands for the container on this host" },
  "pidfd-socket": { kind: "text", value: "PATH", help: "unix socket that is sent a pidfd of the process that stands for the container" },
  accel: { kind: "text", value: "kvm|tcg|auto", help: "how the virtual machine's processor is run (default: the configuration's)" },
  trace: { kind: "switch", help: "print how long each step took, on standard error" },
  "no-pivot": { kind: "switch", help: "accepted for runc's sake; without meaning in a virtual machine" },
  "no-new-keyring": { kind: "switch", help: "accepted for runc's sake; without meaning in a virtual machine" },
  "no-subreaper": { kind: "switch", help: "accepted for runc's sake; without meaning here" },
  "preserve-fds": { kind: "number", value: "N", help: "only 0: descriptors cannot be passed into a virtual machine" },
  config: refusedFlag("text", "the bundle's own config.json is read, now and at each exec", "FILE"),
} as const;

export const runVerb = verb({
  summary: "create and run a container in a virtual machine of its own",
  operands: "<container-id>",
  count: [1, 1],
  flags: {
    detach: { kind: "switch", short: "d", help: "return once the container runs" },
    keep: { kind: "switch", help: "do not delete the container after it has ended" },
    ...container,
  },
  description: `The exit status is the container's own, or 128+N where signal N ended it; 125 where husk
failed, 126 where the program cannot be executed, 127 where it does not exist.`,
  examples: [
    ["Run the bundle in the current directory", "husk run box"],
    ["Run another one in the background, and look at it", "husk run -d --bundle /srv/web web && husk list"],
    ["See where the time goes", "husk run --trace box"],
  ],
});

export const createVerb = verb({
  summary: "create a container; its program runs at `husk start`",
  operands: "<container-id>",
  count: [1, 1],
  flags: container,
  examples: [["Create, run and delete", "husk create --bundle /srv/web web && husk start web && husk delete --force web"]],
});

/** Flags of CRIU's that a whole virtual machine has no use for, and why. */
const criu = {
  "work-path": { kind: "text", value: "DIR", help: "accepted for runc's sake; nothing is logged there" },
  "tcp-established": { kind: "switch", help: "accepted for runc's sake; connections inside the container go on, others end" },
  "ext-unix-sk": { kind: "switch", help: "accepted for runc's sake; a container has no sockets of the host's" },
  "shell-job": { kind: "switch", help: "accepted for runc's sake; terminals are always carried" },
  "file-locks": { kind: "switch", help: "accepted for runc's sake; locks are always carried" },
  "manage-cgroups-mode": { kind: "text", value: "MODE", help: "accepted for runc's sake; the container's cgroups are in the guest" },
  "empty-ns": { kind: "list", value: "NAME", help: "accepted for runc's sake; the network namespace is always the bundle's" },
} as const;

const imagePath = { kind: "text", value: "DIR", help: "the folder of the checkpoint (default: ./checkpoint)" } as const;

export const checkpointVerb = verb({
  summary: "save a running container to a folder, to go on later",
  operands: "<container-id>",
  count: [1, 1],
  flags: {
    "image-path": imagePath,
    "leave-running": { kind: "switch", help: "let the container go on; its disk, if it has one, is copied to the checkpoint" },
    "parent-path": { kind: "text", value: "DIR", help: "not supported: each checkpoint is whole" },
    "pre-dump": { kind: "switch", help: "not supported: each checkpoint is whole" },
    "lazy-pages": { kind: "switch", help: "not supported: memory is restored as a whole" },
    "page-server": { kind: "text", value: "HOST:PORT", help: "not supported: memory is written to the folder" },
    "status-fd": { kind: "text", value: "FD", help: "not supported" },
    "auto-dedup": { kind: "switch", help: "not supported: each checkpoint is whole" },
    ...criu,
    "link-remap": { kind: "switch", help: "accepted for runc's sake; files without a name are always carried" },
    "tcp-skip-in-flight": { kind: "switch", help: "accepted for runc's sake; what is under way inside the container is always carried" },
  },
  description: `Saved is the whole virtual machine: processes, memory, open files, timers. The container ends as by
SIGKILL, unless it is left running. Files of the host, in its root and bind mounts, are not copied: those
that are in use must still be there at the restore. TCP connections to the outside are not carried.`,
  examples: [
    [
      "Save it, and go on another day",
      "husk checkpoint --image-path /srv/box box && husk delete box && husk restore --image-path /srv/box box",
    ],
    ["A copy of it as it is now", "husk checkpoint --leave-running --image-path /srv/copy box"],
  ],
});

export const restoreVerb = verb({
  summary: "create a container from a checkpoint, and let it go on",
  operands: "<container-id>",
  count: [1, 1],
  flags: {
    "image-path": imagePath,
    detach: { kind: "switch", short: "d", help: "return once the container goes on" },
    ...container,
    "lazy-pages": { kind: "switch", help: "not supported: memory is restored as a whole" },
    "auto-dedup": { kind: "switch", help: "not supported: each checkpoint is whole" },
    "lsm-profile": { kind: "text", value: "PROFILE", help: "accepted: the virtual machine is the stronger boundary" },
    "lsm-mount-context": { kind: "text", value: "CONTEXT", help: "accepted: the virtual machine is the stronger boundary" },
    ...criu,
  },
  description: `The bundle says where the container is on this host: its root, its bind mounts, its network namespace, its
cgroup, its hooks. What runs in it is the checkpoint's. A disk must be as it was at the checkpoint: the same
file, with nothing written to it since, or, where the container was left running, a copy of the checkpoint's.
A folder may be another one with the same files in it.
Before anything runs, the guest gets the present time, new random numbers and the namespace's network.
Husk and QEMU must be those that made the checkpoint. The exit status is as with \`husk run\`.`,
  examples: [
    ["Go on where `husk checkpoint` ended", "husk restore --bundle /srv/web --image-path /srv/box box"],
    ["In the background", "husk restore -d --bundle /srv/web --image-path /srv/box box"],
  ],
});

export const execVerb = verb({
  summary: "run a further program in a container",
  operands: "<container-id> <program> [argument...]",
  count: [1, Number.POSITIVE_INFINITY],
  stopAtOperand: true,
  flags: {
    tty: { kind: "switch", short: "t", help: "give it a terminal" },
    user: { kind: "text", short: "u", value: "USER[:GROUP]", help: "who it runs as, in numbers or the container's names" },
    "additional-gids": { kind: "list", short: "g", value: "GID", help: "a further group; may be repeated" },
    env: { kind: "list", short: "e", value: "NAME=VALUE", help: "a further environment variable; may be repeated" },
    cwd: { kind: "text", value: "DIR", help: "its working directory in the container" },
    detach: { kind: "switch", short: "d", help: "return once it runs" },
    process: { kind: "text", short: "p", value: "FILE", help: "take the whole process from a JSON file, as the runtime spec has it" },
    "pid-file": { kind: "text", value: "FILE", help: "where to write the PID that stands for it on this host" },
    "pidfd-socket": { kind: "text", value: "PATH", help: "unix socket that is sent a pidfd of the process that stands for it" },
    "console-socket": { kind: "text", value: "PATH", help: "unix socket that is sent the master of its terminal" },
    cap: { kind: "list", short: "c", value: "CAP", help: "a further capability, such as CAP_NET_ADMIN; may be repeated" },
    "no-new-privs": { kind: "switch", help: "it cannot gain privileges by executing programs" },
    apparmor: { kind: "text", value: "PROFILE", help: "accepted: the virtual machine is the stronger boundary" },
    "process-label": { kind: "text", value: "LABEL", help: "accepted: the virtual machine is the stronger boundary" },
    cgroup: {
      kind: "text",
      value: "PATH",
      help: "a cgroup below the container's that it joins; /: that itself, and no other in its place",
    },
    "ignore-paused": { kind: "switch", help: "do it in a paused container too" },
    "preserve-fds": { kind: "number", value: "N", help: "only 0: descriptors cannot be passed into a virtual machine" },
  },
  description: `What no flag says is taken from the process in the container's config.json. The exit status is
the program's own, or 128+N where signal N ended it; 255 where there is no program to run, or husk
failed.`,
  examples: [
    ["A shell in a running container", "husk exec -t box sh"],
    ["As another user, somewhere else", "husk exec -u 1000:1000 --cwd /tmp -e LANG=C box id"],
    ["In the background", "husk exec -d --pid-file /run/job.pid box /bin/job --fast"],
  ],
});
