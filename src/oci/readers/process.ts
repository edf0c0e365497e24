/** The `process` object: of the container's first process, and of those that `exec` adds. */
import {
  absolutePath,
  boolean,
  checked,
  integer,
  list,
  nonEmptyString,
  object,
  oneOf,
  optional,
  otherwise,
  type Reader,
  string,
  wrong,
} from "../../narrow.ts";
import type { Capabilities, ConsoleSize, CpuAffinity, IoPriority, Process, Rlimit, Scheduler, User } from "../types.ts";
import { int32, uint16, uint64, userId } from "./numbers.ts";

const rlimitTypes = [
  "AS",
  "CORE",
  "CPU",
  "DATA",
  "FSIZE",
  "LOCKS",
  "MEMLOCK",
  "MSGQUEUE",
  "NICE",
  "NOFILE",
  "NPROC",
  "RSS",
  "RTPRIO",
  "RTTIME",
  "SIGPENDING",
  "STACK",
].map((name) => `RLIMIT_${name}`);

const rlimit: Reader<Rlimit> = checked(object<Rlimit>({ type: oneOf(rlimitTypes), soft: uint64, hard: uint64 }), ({ type, soft, hard }) =>
  soft > hard ? `the soft limit of ${type}, ${soft}, is above the hard one, ${hard}` : undefined,
);

const rlimits: Reader<readonly Rlimit[]> = checked(list(rlimit), (limits) => {
  const twice = limits.find(({ type }, index) => limits.findIndex((other) => other.type === type) !== index);
  return twice && `${twice.type} is given twice`;
});

/** The program, which must be there, and its arguments, which may be empty strings. */
const args: Reader<readonly string[]> = (value, place) => {
  const words = list(string)(value, place);
  if (words.length === 0) return wrong(place, "a non-empty list", value);
  nonEmptyString(words[0], place.index(0));
  return words;
};

const scheduler: Reader<Scheduler> = object<Scheduler>({
  policy: oneOf(["SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"]),
  nice: optional(integer(-20, 19)),
  priority: optional(int32),
  flags: optional(list(nonEmptyString)),
  runtime: optional(uint64),
  deadline: optional(uint64),
  period: optional(uint64),
});

/** What is not given is root's: programs that fill in structures of Go leave it out, and runc takes it. */
const user: Reader<User> = otherwise(
  object<User>({
    uid: otherwise(userId, 0),
    gid: otherwise(userId, 0),
    umask: optional(integer(0, 0o777)),
    additionalGids: optional(list(userId)),
    username: optional(string),
  }),
  {},
);

export const process: Reader<Process> = object<Process>({
  terminal: optional(boolean),
  consoleSize: optional(object<ConsoleSize>({ height: uint16, width: uint16 })),
  user,
  args,
  env: optional(list(string)),
  cwd: absolutePath,
  capabilities: optional(
    object<Capabilities>({
      bounding: optional(list(nonEmptyString)),
      effective: optional(list(nonEmptyString)),
      inheritable: optional(list(nonEmptyString)),
      permitted: optional(list(nonEmptyString)),
      ambient: optional(list(nonEmptyString)),
    }),
  ),
  rlimits: optional(rlimits),
  noNewPrivileges: optional(boolean),
  apparmorProfile: optional(string),
  oomScoreAdj: optional(integer(-1000, 1000)),
  scheduler: optional(scheduler),
  selinuxLabel: optional(string),
  ioPriority: optional(
    object<IoPriority>({ class: oneOf(["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"]), priority: optional(integer(0, 7)) }),
  ),
  execCPUAffinity: optional(object<CpuAffinity>({ initial: optional(string), final: optional(string) })),
  commandLine: optional(string),
});
