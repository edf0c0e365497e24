/** The `linux.seccomp` object. */
import { integer, list, nonEmptyList, nonEmptyString, object, oneOf, optional, type Reader, string } from "../../narrow.ts";
import type { Seccomp, SyscallArgument, SyscallRule } from "../types.ts";
import { uint32, uint64 } from "./numbers.ts";

const action = oneOf(
  ["KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG", "NOTIFY"].map((name) => `SCMP_ACT_${name}`),
);

const operator = oneOf(["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"].map((name) => `SCMP_CMP_${name}`));

const argument: Reader<SyscallArgument> = object<SyscallArgument>({
  index: integer(0, 5),
  value: uint64,
  valueTwo: optional(uint64),
  op: operator,
});

const rule: Reader<SyscallRule> = object<SyscallRule>({
  names: nonEmptyList(nonEmptyString),
  action,
  errnoRet: optional(uint32),
  args: optional(list(argument)),
});

export const seccomp: Reader<Seccomp> = object<Seccomp>({
  defaultAction: action,
  defaultErrnoRet: optional(uint32),
  architectures: optional(list(nonEmptyString)),
  flags: optional(list(nonEmptyString)),
  listenerPath: optional(string),
  listenerMetadata: optional(string),
  syscalls: optional(list(rule)),
});
