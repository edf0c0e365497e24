/** QEMU as a program of a sandbox. */
import type { SandboxProgram } from "../../host/sandbox-plan.ts";
import type { Machine } from "../machine.ts";
import { qemuArguments } from "./command-line.ts";

/** `qemu`: the program's path; `descriptors`: all that it inherits. */
export function qemuProgram(qemu: string, machine: Machine, descriptors: readonly number[]): SandboxProgram {
  return {
    name: "qemu",
    argv: [qemu, ...qemuArguments(machine)],
    user: "user",
    fds: descriptors,
    ...(machine.memory.kind === "template" ? { privateMemory: true } : {}),
  };
}
