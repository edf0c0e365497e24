import { chmodSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { defaultSpec } from "./default-spec.ts";
import { guestSpec } from "./guest-spec.ts";
import { inspectHookPrograms } from "./hook-programs.ts";
import { judge } from "./support.ts";

/** The smallest file that says of itself what an ELF program of 64 bits does, with one table entry of that kind. */
function elf(kind: number): Buffer {
  const file = Buffer.alloc(120);
  file.writeUInt32BE(0x7f454c46, 0);
  file[4] = 2;
  file.writeBigUInt64LE(64n, 32);
  file.writeUInt16LE(56, 54);
  file.writeUInt16LE(1, 56);
  file.writeUInt32LE(kind, 64);
  return file;
}

test("a static program is shown to the guest; others are refused by name", () => {
  const folder = mkdtempSync(join(tmpdir(), "husk-hooks-"));
  try {
    const at = (name: string) => join(folder, name);
    writeFileSync(at("static"), elf(1));
    writeFileSync(at("dynamic"), elf(3));
    writeFileSync(at("script"), "#!/bin/sh\n");
    writeFileSync(at("huge"), Buffer.concat([elf(1).fill(0xff, 32, 40), Buffer.alloc(8)]));
    symlinkSync("static", at("link"));
    chmodSync(at("static"), 0o755);
    const hooks = ["link", "dynamic", "script", "huge", "missing"].map((name) => ({ path: at(name) }));
    const hookPrograms = inspectHookPrograms(hooks);
    expect(hookPrograms.get(0)).toEqual({ kind: "static", realPath: at("static") });

    const spec = { ...defaultSpec, hooks: { createContainer: hooks } };
    expect(judge(spec, { bundle: "/b", sources: new Map(), hookPrograms }).map(({ path, reason }) => `${path}: ${reason}`)).toEqual(
      [
        [1, "dynamic is linked dynamically, and the guest has none of the host's libraries"],
        [2, "script is a script or no program for this processor, and the guest has no interpreter of the host's"],
        [3, "huge has no table of what is to be loaded where one is expected"],
        [4, expect.stringContaining("missing cannot be read: ENOENT")],
      ].map(([index, words]) =>
        typeof words === "string"
          ? `hooks.createContainer[${String(index)}]: it runs in the container's namespaces, and so in the guest: ${folder}/${words}`
          : words,
      ),
    );

    const guest = guestSpec(
      { ...defaultSpec, hooks: { createContainer: hooks.slice(0, 1) } },
      { bundle: "/b", sources: new Map(), rootPath: "/r", guestPath: ({ index }) => `/guest/${index}`, hookPrograms, seccomp: null },
    );
    expect(guest.spec.hooks).toEqual({ createContainer: [{ path: "/guest/7", args: [at("link")] }] });
    expect(guest.shares).toEqual([{ index: 7, hostPath: at("static"), readonly: true, isFile: true }]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
