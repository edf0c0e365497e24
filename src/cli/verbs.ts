/** Every verb there is, in the order of the help. */
import { refusedFlag } from "./flags.ts";
import { checkpointVerb, createVerb, execVerb, restoreVerb, runVerb } from "./session-verbs.ts";
import { updateFlags } from "./update-flags.ts";
import { verb } from "./verb.ts";

/** crun's, with which an id is a pattern. */
const regex = refusedFlag("switch", "name one container a call, such as with `husk list -q | grep PATTERN | xargs -n 1`");

const format = (formats: string, help = "the output's form") => ({ kind: "text", short: "f", value: formats, help }) as const;

export const verbs = {
  run: runVerb,
  create: createVerb,
  start: verb({
    summary: "run the program of a created container",
    operands: "<container-id>",
    count: [1, 1],
    flags: {},
    examples: [["After `husk create box`", "husk start box"]],
  }),
  exec: execVerb,
  state: verb({
    summary: "print the state of a container as JSON",
    operands: "<container-id>",
    count: [1, 1],
    flags: {},
    examples: [["Whether it runs", "husk state box | jq -r .status"]],
  }),
  list: verb({
    summary: "list the containers below the root folder",
    operands: "",
    count: [0, 0],
    flags: {
      format: format("table|json"),
      quiet: { kind: "switch", short: "q", help: "ids alone, one a line" },
    },
    examples: [
      ["All containers", "husk list"],
      ["Those of another root folder", "husk --root /run/other list -q"],
    ],
  }),
  ps: verb({
    summary: "list the processes in a container",
    operands: "<container-id>",
    count: [1, Number.POSITIVE_INFINITY],
    stopAtOperand: true,
    flags: { format: format("table|json|details") },
    description: `table: the guest's processes, by their PIDs in the guest. details: the same as JSON.
json: the PIDs on this host, as runc has it; that is the one which stands for the container.`,
    examples: [["What runs in it", "husk ps box"]],
  }),
  kill: verb({
    summary: "send a signal to a container's first process (default: SIGTERM)",
    operands: "<container-id> [signal]",
    count: [1, 2],
    flags: { all: { kind: "switch", short: "a", help: "to every process in the container" }, regex },
    examples: [
      ["Ask it to end", "husk kill box"],
      ["Names and numbers will do", "husk kill box KILL"],
    ],
  }),
  delete: verb({
    summary: "delete a container that has ended, and give back all it holds",
    operands: "<container-id>",
    count: [1, 1],
    flags: { force: { kind: "switch", short: "f", help: "kill it first where it has not ended; an unknown one is no error" }, regex },
    examples: [["Whatever its state", "husk delete --force box"]],
  }),
  update: verb({
    summary: "change the limits of a container that lives",
    operands: "<container-id>",
    count: [1, 1],
    flags: updateFlags,
    description: `Memory, processes and the quota act in the guest; shares and processors on the host as well.
A limit above what the virtual machine was made with is refused.`,
    examples: [
      ["Half a processor, and less memory", "husk update --cpu-quota 50000 --cpu-period 100000 --memory 256m box"],
      ["As an engine does it", `echo '{"pids": {"limit": 64}}' | husk update --resources - box`],
    ],
  }),
  events: verb({
    summary: "print what a container uses, again and again, and each kill for want of memory",
    operands: "<container-id>",
    count: [1, 1],
    flags: {
      stats: { kind: "switch", help: "once, and no more" },
      interval: { kind: "text", value: "TIME", help: "how often, such as 500ms, 2s, 1m30s (default: 5s)" },
    },
    description: "JSON objects, one a line, as runc prints them. Ends when the container does.",
    examples: [["How much memory it uses", "husk events --stats box | jq .data.memory.usage.usage"]],
  }),
  stats: verb({
    summary: "print what sandboxes take of this host's memory, process by process",
    operands: "[container-id]",
    count: [0, 1],
    flags: {
      host: { kind: "switch", help: "required: what a container uses in its guest is told by `husk events`" },
      format: format("table|json"),
    },
    description: `PSS is a process's share of all that it maps: a page that three processes map counts a third in each. So the sums are
what sandboxes add to the host, with what they share counted once: the pages of programs, and a template's memory.
ANON: memory of the process's own. FILE: pages of files, such as programs. SHARED: shared memory, such as a template's,
or a guest's that virtiofsd maps too. The host's kernel takes more, which is in none. As JSON, everything is in bytes.
The sandboxes of containerd's shims are told of as well, as NAMESPACE/ID.`,
    examples: [
      ["All sandboxes", "husk stats --host"],
      ["What they take together, in MiB", "husk stats --host -f json | jq 'map(.pss) | add / 1048576'"],
    ],
  }),
  pause: verb({
    summary: "stop every process in a container until `husk resume`",
    operands: "<container-id>",
    count: [1, 1],
    flags: {},
    examples: [["Freeze it", "husk pause box"]],
  }),
  resume: verb({
    summary: "let the processes of a paused container go on",
    operands: "<container-id>",
    count: [1, 1],
    flags: {},
    examples: [["Thaw it", "husk resume box"]],
  }),
  checkpoint: checkpointVerb,
  restore: restoreVerb,
  spec: verb({
    summary: "write a config.json to start from",
    operands: "",
    count: [0, 0],
    flags: {
      bundle: { kind: "text", short: "b", value: "DIR", help: "the folder to write it into (default: the current directory)" },
      rootless: { kind: "switch", help: "one whose root is the caller's user, in a user namespace, and without limits" },
    },
    examples: [["A bundle from a folder with a root file system", "mkdir box && mv rootfs box/ && husk spec -b box"]],
  }),
  logs: verb({
    summary: "print what was logged of a container's sandbox",
    operands: "<container-id>",
    count: [1, 1],
    flags: {
      guest: { kind: "switch", help: "the guest's console instead: its kernel and its agent" },
      follow: { kind: "switch", help: "go on as it grows, until the sandbox ends" },
    },
    examples: [["Why a guest died", "husk logs --guest box"]],
  }),
  doctor: verb({
    summary: "say what this host can do, what it lacks, and how to mend it",
    operands: "",
    count: [0, 0],
    flags: { format: format("table|json") },
    description: "The exit status is 1 where husk cannot run containers here.",
    examples: [["Before anything else", "husk doctor"]],
  }),
  config: verb({
    summary: "print the configuration in force, and where each value comes from",
    operands: "",
    count: [0, 0],
    flags: {},
    examples: [["Everything", "husk config"]],
  }),
  gc: verb({
    summary: "remove what dead sandboxes left behind",
    operands: "",
    count: [0, 0],
    flags: {
      "dry-run": { kind: "switch", help: "only say what would be removed" },
      container: { kind: "text", value: "ID", help: "that container alone, if it is to be removed at all" },
    },
    description: `A container is removed where its supervisor died, or where the foreground \`husk run\` that owned
it is gone. One that has ended in an orderly way is its owner's to delete.`,
    examples: [["Look first", "husk gc --dry-run"]],
  }),
  template: verb({
    summary: "list, make, look at or remove the templates that sandboxes are cloned from",
    operands: "ls|create|inspect|rm [key...]",
    count: [1, 1000],
    flags: {
      all: { kind: "switch", short: "a", help: "with rm: every template" },
      tenant: { kind: "text", value: "NAME", help: "create: for that tenant; ls, rm --all: those of that tenant alone" },
    },
    description: `create makes the one that a bundle without limits needs, and prints its key; a sandbox that needs another
makes it itself. A template that is removed is not missed by what was cloned from it; what stands by of it has ended
when rm has. Whose a template is follows from the configuration (template.tenant); ls prints - for those of nobody in
particular, and namespaces as kubernetes:NAME or containerd:NAME, which --tenant takes as well.`,
    examples: [
      ["Make the first container as fast as the second", "husk template create"],
      ["Give their room back", "husk template rm --all"],
      ["Give back the room of a tenant's", "husk template rm --all --tenant kubernetes:red"],
    ],
  }),
  pool: verb({
    summary: "keep sandboxes ready, which run and create take instead of making their own",
    operands: "[status|stop]",
    count: [0, 1],
    flags: {
      size: { kind: "number", value: "N", help: "how many" },
      vcpus: { kind: "text", value: "N", help: "processors of each (default: the configuration's vm.vcpus)" },
      memory: { kind: "text", value: "SIZE", help: "the container's memory in each (default: the configuration's vm.memory)" },
      images: { kind: "switch", help: "for containers whose files are all in images, in place of those that have folders of the host" },
    },
    description: `Stays in the foreground. A container takes one where the pool has one of its size, and it has a network
namespace of its own; it makes its own otherwise. HUSK_POOL names the pools' folder (default: /run/husk-pool);
where it is empty, none is used.`,
    examples: [
      ["Two, from now on", "husk pool --size 2 &"],
      ["For containers with a limit of 256 MiB", "husk pool --size 4 --memory 256MiB"],
      ["For containers with an image as root", "husk pool --size 2 --images"],
      ["How many are ready", "husk pool status"],
    ],
  }),
  features: verb({
    summary: "print what husk supports of the runtime spec, as JSON",
    operands: "",
    count: [0, 0],
    flags: {},
    examples: [["The hooks", "husk features | jq .hooks"]],
  }),
  version: verb({
    summary: "print the version",
    operands: "",
    count: [0, 0],
    flags: {},
    examples: [["", "husk version"]],
  }),
  completion: verb({
    summary: "print a completion script for a shell",
    operands: "bash|zsh",
    count: [1, 1],
    flags: {},
    examples: [["For this shell", "source <(husk completion bash)"]],
  }),
} as const;

export type Verbs = typeof verbs;
export type VerbName = keyof Verbs;

export const verbNames = Object.keys(verbs) as readonly VerbName[];
