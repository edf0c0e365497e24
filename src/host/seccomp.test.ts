import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { compileSeccomp } from "./seccomp.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "husk-seccomp-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** A helper that does as the script says. */
function helper(script: string): string {
  const path = join(folder, "helper");
  writeFileSync(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return path;
}

const profile = { defaultAction: "SCMP_ACT_ERRNO", syscalls: [{ names: ["read"], action: "SCMP_ACT_ALLOW" }] };

test("the helper gets the profile, and its answer is the filter", async () => {
  const program = helper(`cat > ${folder}/profile; echo '{"flags":2,"program":"0600000000000000"}'`);
  expect(await compileSeccomp(program, profile)).toEqual({ flags: 2, program: "0600000000000000" });
  expect(JSON.parse(readFileSync(join(folder, "profile"), "utf8"))).toEqual(profile);
});

test("what cannot be carried out is said by the helper", async () => {
  const program = helper("echo 'husk: linux.seccomp.flags: unknown value \"MOON\"' >&2; exit 1");
  await expect(compileSeccomp(program, profile)).rejects.toMatchObject({
    code: "unsupported",
    message: 'config.json: linux.seccomp cannot be carried out: husk: linux.seccomp.flags: unknown value "MOON"',
  });
});

test("an answer that is no filter is a defect", async () => {
  for (const answer of ["", "{}", '{"flags":0,"program":"06"}', '{"flags":-1,"program":"0600000000000000"}']) {
    await expect(compileSeccomp(helper(`echo '${answer}'`), profile), answer).rejects.toMatchObject({ code: "internal" });
  }
});

test("a helper that is not there", async () => {
  await expect(compileSeccomp(join(folder, "absent"), profile)).rejects.toMatchObject({ code: "host" });
});
