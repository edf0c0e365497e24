/**
 * The programs of createContainer hooks: files of the host (runtime-spec, config.md) that run in the container's namespaces, and so in the guest. A program that is
 * all in its one file is shown to the guest; any other would miss its libraries or its interpreter there.
 */
import { closeSync, openSync, readSync, realpathSync } from "node:fs";
import { explain } from "../errors.ts";
import type { Hook } from "./types.ts";

/** By the hook's index. */
export type HookPrograms = ReadonlyMap<number, HookProgram>;

export type HookProgram = { readonly kind: "static"; readonly realPath: string } | { readonly kind: "foreign"; readonly reason: string };

/** How much of a program is read: its header, and the table of what is loaded, which compilers put right behind it. */
const headBytes = 4096;

/** The entry of an ELF file that names the dynamic loader (elf(5)). */
const PT_INTERP = 3;

/** Looks at the hooks' programs. */
export function inspectHookPrograms(hooks: readonly Hook[] = []): HookPrograms {
  return new Map(hooks.map(({ path }, index) => [index, inspect(path)]));
}

function inspect(path: string): HookProgram {
  try {
    const realPath = realpathSync(path);
    const fd = openSync(realPath, "r");
    try {
      const head = Buffer.alloc(headBytes);
      const reason = problem(head.subarray(0, readSync(fd, head, 0, headBytes, 0)));
      return reason === undefined ? { kind: "static", realPath } : { kind: "foreign", reason: `${path} ${reason}` };
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    return { kind: "foreign", reason: `${path} cannot be read: ${explain(error)}` };
  }
}

/** Why a program that begins like this cannot run in the guest. */
function problem(head: Buffer): string | undefined {
  const isElf64 = head.length >= 64 && head.readUInt32BE(0) === 0x7f454c46 && head[4] === 2;
  if (!isElf64) return "is a script or no program for this processor, and the guest has no interpreter of the host's";
  const [offset, size, count] = [Number(head.readBigUInt64LE(32)), head.readUInt16LE(54), head.readUInt16LE(56)];
  if (size < 4 || offset + size * count > head.length) return "has no table of what is to be loaded where one is expected";
  const kinds = Array.from({ length: count }, (_, index) => head.readUInt32LE(offset + size * index));
  return kinds.includes(PT_INTERP) ? "is linked dynamically, and the guest has none of the host's libraries" : undefined;
}
