import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { runHooks, runPoststop } from "./hooks.ts";

let bundle: string;
beforeEach(() => {
  bundle = mkdtempSync(join(tmpdir(), "husk-hooks-"));
});
afterEach(() => rmSync(bundle, { recursive: true }));

const shell = (script: string, more: object = {}) => ({ path: "/bin/sh", args: ["sh", "-c", script], ...more });

test("hooks run in order, in the bundle, with the state on standard input and no environment but their own", async () => {
  await runHooks(
    "prestart",
    [shell("cat > state; echo $A$HOME > env", { env: ["A=1"] }), shell("cat state >> order; echo done >> order")],
    { id: "x" },
    bundle,
  );
  expect(readFileSync(join(bundle, "order"), "utf8")).toBe('{"id":"x"}done\n');
  expect(readFileSync(join(bundle, "env"), "utf8")).toBe("1\n");
});

test("a hook that names no environment has husk's own; one that names an empty one has none", async () => {
  vi.stubEnv("HUSK_TEST_WORD", "inherited");
  const write = (file: string): string => `echo "word=$HUSK_TEST_WORD" > ${file}`;
  await runHooks("prestart", [shell(write("own")), shell(write("none"), { env: [] })], {}, bundle);
  vi.unstubAllEnvs();
  expect(readFileSync(join(bundle, "own"), "utf8")).toBe("word=inherited\n");
  expect(readFileSync(join(bundle, "none"), "utf8")).toBe("word=\n");
});

test("a failing hook stops those after it, with what it said", async () => {
  const hooks = [shell("echo no such bridge >&2; exit 3"), shell("touch second")];
  await expect(runHooks("createRuntime", hooks, {}, bundle)).rejects.toThrow(
    "error running createRuntime hook #0: /bin/sh ended with status 3: no such bridge",
  );
  expect(() => readFileSync(join(bundle, "second"))).toThrow("ENOENT");
});

test("poststop hooks all run, whichever of them fail, and those are told of", async () => {
  const warnings: string[] = [];
  await runPoststop([shell("exit 3"), shell("touch second")], { status: "stopped" }, bundle, (message) => warnings.push(message));
  expect(warnings).toEqual(["error running poststop hook #0: /bin/sh ended with status 3"]);
  expect(readFileSync(join(bundle, "second"), "utf8")).toBe("");
});

test("a hook that cannot be started is named", async () => {
  await expect(runHooks("poststop", [{ path: "/no/such/hook" }], {}, bundle)).rejects.toThrow(
    "error running poststop hook #0: /no/such/hook cannot be started",
  );
});

test("a hook that takes longer than its timeout is killed with what it started", async () => {
  // Whoever lives holds the FIFO's writing end: the end of file says that nobody does.
  const fifo = join(bundle, "fifo");
  execFileSync("mkfifo", [fifo]);
  const everybodyGone = readFile(fifo);
  const hook = shell(`exec 9> ${fifo}; sleep 1000 & wait`, { timeout: 0.3 });
  await expect(runHooks("prestart", [hook], {}, bundle)).rejects.toThrow(
    "error running prestart hook #0: /bin/sh did not end within 0.3 s",
  );
  expect(await everybodyGone).toHaveLength(0);
});

test("a hook need not read its state", async () => {
  await runHooks("poststart", [{ path: "/bin/true" }], { big: "x".repeat(1_000_000) }, bundle);
});
