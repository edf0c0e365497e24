/** Hooks that run on the host: in their order, told of the container, and fatal where they fail before the start. */
import { chmodSync, copyFileSync, existsSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { expect } from "vitest";
import { type Host, test } from "../harness/host.ts";
import { isHusk } from "../harness/runtime.ts";

/** A hook that writes its name and the state it was given to the file "trace", then does `more`. */
function hook(host: Host, name: string, more = "true"): { path: string; args: string[]; env: string[] } {
  const path = host.path("hook.sh");
  if (!existsSync(path)) {
    writeFileSync(path, '#!/bin/sh\nstate=$(cat)\necho "$1 $KEY $PWD $state" >>"$TRACE"\neval "$2"\n', { mode: 0o755 });
  }
  return { path, args: [path, name, more], env: ["PATH=/usr/bin:/bin", `TRACE=${host.path("trace")}`, "KEY=value"] };
}

interface Trace {
  readonly name: string;
  readonly rest: string;
  readonly state: { readonly id: string; readonly status: string; readonly pid: number; readonly bundle: string };
}

function trace(host: Host): Trace[] {
  return readFileSync(host.path("trace"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => {
      const [name = "", key = "", folder = ""] = line.split(" ");
      return { name, rest: `${key} ${folder}`, state: JSON.parse(line.slice(line.indexOf("{"))) as Trace["state"] };
    });
}

test("in their order, with the state on stdin, in the bundle's folder", async ({ host }) => {
  const kinds = ["prestart", "createRuntime", "poststart", "poststop"];
  const bundle = host.script("sleep 0.1; exit 3", { hooks: Object.fromEntries(kinds.map((kind) => [kind, [hook(host, kind)]])) });
  expect((await host.run(bundle)).status).toBe(3);
  const seen = trace(host);
  expect(seen.map(({ name }) => name)).toEqual(kinds);
  for (const { rest } of seen) expect(rest).toBe(`value ${bundle.path}`);
  expect(new Set(seen.map(({ state }) => `${state.id} ${state.bundle}`))).toEqual(new Set([`c2 ${bundle.path}`]));
  expect(seen.slice(0, 3).every(({ state }) => state.pid > 1)).toBe(true);
  expect(seen.at(-1)?.state.status).toBe("stopped");
});

test("create's hooks can meet the container's network namespace by its PID", async ({ host }) => {
  const look = 'readlink /proc/$(echo "$state" | sed "s/.*\\"pid\\": *\\([0-9]*\\).*/\\1/")/ns/net >$TRACE.net';
  const bundle = host.script("true", { hooks: { createRuntime: [hook(host, "createRuntime", look)] } });
  const { id } = await host.create(bundle);
  const namespace = readFileSync(host.path("trace.net"), "utf8").trim();
  expect(namespace).toMatch(/^net:\[\d+\]$/);
  expect(namespace).not.toBe(readlinkSync("/proc/self/ns/net"));
  await host.ok("delete", "--force", id);
});

test.for(["prestart", "createRuntime"])("a %s hook that fails fails create, and leaves nothing", async (kind, { host }) => {
  const bundle = host.script("echo never", { hooks: { [kind]: [hook(host, kind, "echo what went wrong >&2; exit 4")] } });
  const { status, stdout, stderr } = await host.runtime("create", "--bundle", bundle.path, "c");
  expect(status).not.toBe(0);
  expect(stdout).toBe("");
  expect(stderr).toMatch(/hook.*what went wrong/is);
  expect(await host.ok("list", "-q")).toBe("");
});

// runc runs them at create already: https://github.com/opencontainers/runc/issues/4347
test.runIf(isHusk)("a poststart hook that fails is the end of the container: start fails, and nothing of it stays", async ({ host }) => {
  const hooks = {
    poststart: [hook(host, "poststart", "echo what went wrong >&2; exit 4"), hook(host, "never")],
    poststop: [hook(host, "poststop", "exit 5"), hook(host, "last")],
  };
  const bundle = host.script("sleep 1000", { hooks });
  const { id } = await host.create(bundle);
  const { status, stderr } = await host.runtime("start", id);
  expect(status).toBe(1);
  expect(stderr).toMatch(/error running poststart hook #0: .*what went wrong/);
  expect(await host.ok("list", "-q")).toBe("");
  const seen = ["poststart", "poststop", "last"];
  expect(trace(host).map(({ name, state }) => `${name} ${state.status}`)).toEqual([
    "poststart running",
    "poststop stopped",
    "last stopped",
  ]);

  expect((await host.run(bundle)).status).toBe(1);
  expect(trace(host).map(({ name }) => name)).toEqual([...seen, ...seen]);
  expect(await host.ok("list", "-q")).toBe("");
});

test("poststop runs after a create that failed, too", async ({ host }) => {
  const hooks = { createRuntime: [hook(host, "createRuntime", "exit 4")], poststop: [hook(host, "poststop")] };
  const { status } = await host.runtime("create", "--bundle", host.script("echo never", { hooks }).path, "c");
  expect(status).toBe(1);
  expect(trace(host).map(({ name }) => name)).toEqual(["createRuntime", "poststop"]);
});

test("a poststop hook that fails is said on standard error, and changes nothing else", async ({ host }) => {
  const hooks = { poststop: [hook(host, "poststop", "echo what went wrong >&2; exit 5"), hook(host, "last")] };
  const { status, stdout, stderr } = await host.run(host.script("echo out; exit 3", { hooks }));
  expect({ status, stdout }).toEqual({ status: 3, stdout: "out\n" });
  expect(stderr).toMatch(isHusk ? /^husk: warning: error running poststop hook #0: .*what went wrong\n$/ : /hook #0: .*what went wrong/);
  expect(await host.ok("list", "-q")).toBe("");
});

test("poststop runs at delete, and a failure of it keeps nothing", async ({ host }) => {
  const bundle = host.script("true", { hooks: { poststop: [hook(host, "poststop", "exit 1")] } });
  const { id, program } = await host.create(bundle);
  await host.ok("start", id);
  await program.ended();
  await host.until(async () => (await host.state(id)).status === "stopped");
  expect(existsSync(host.path("trace"))).toBe(false);
  await host.runtime("delete", id);
  expect(trace(host).map(({ name }) => name)).toEqual(["poststop"]);
  expect(await host.ok("list", "-q")).toBe("");
});

test("hooks in the container's own namespaces: createContainer and startContainer", async ({ host }) => {
  // startContainer's path is the container's; createContainer's is the bundle's, run before the root is entered.
  const bundle = host.script("cat /started", {
    hooks: { startContainer: [{ path: "/bin/sh", args: ["sh", "-c", 'grep -o "\\"id\\": *\\"[^\\"]*\\"" | tr -d " " >/started'] }] },
  });
  expect(await host.run(bundle)).toEqual({ status: 0, stdout: '"id":"c2"\n', stderr: "" });
});

test.runIf(isHusk)("a startContainer hook that names no environment has the program's", async ({ host }) => {
  const path = ["sh", "-c", 'echo "$ONE $HOME" >/started'];
  const bundle = host.script("cat /started", {
    process: { env: ["PATH=/bin", "ONE=two", "HOME=/home"] },
    hooks: { startContainer: [{ path: "/bin/sh", args: path }] },
  });
  expect(await host.run(bundle)).toEqual({ status: 0, stdout: "two /home\n", stderr: "" });
});

test("a startContainer hook is held to the container's seccomp filter", async ({ host }) => {
  const seccomp = { defaultAction: "SCMP_ACT_ALLOW", syscalls: [{ names: ["mkdir", "mkdirat"], action: "SCMP_ACT_KILL" }] };
  const bundle = host.script("echo never", {
    process: { noNewPrivileges: true },
    hooks: { startContainer: [{ path: "/bin/busybox", args: ["mkdir", "/tmp/made"] }] },
    linux: { seccomp },
  });
  const { status, stdout, stderr } = await host.run(bundle);
  expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  expect(stderr).toMatch(/error running startContainer hook #0: .*bad system call/);
});

test("createContainer: a static program of the host runs in the container's namespaces", async ({ host }) => {
  const program = host.path("static");
  copyFileSync("/bin/busybox", program);
  chmodSync(program, 0o755);
  const script = `read state; bundle=\${state#*\\"bundle\\":\\"}; bundle=\${bundle%%\\"*}
    [ -d $bundle/rootfs ] && bundle=$bundle/rootfs; echo "$KEY" >$bundle/created`;
  const args = ["busybox", "sh", "-c", script];
  const bundle = host.script("cat /created", {
    hooks: { createContainer: [{ path: program, args, env: ["KEY=value"] }] },
  });
  expect(await host.run(bundle)).toEqual({ status: 0, stdout: "value\n", stderr: "" });
});

test.runIf(isHusk)("createContainer: a program that the guest could not run is refused before anything starts", async ({ host }) => {
  const bundle = host.script("true", { hooks: { createContainer: [{ path: "/bin/sh" }, hook(host, "createContainer")] } });
  const { status, stderr } = await host.run(bundle);
  expect(status).toBe(125);
  expect(stderr).toMatch(
    /hooks\.createContainer\[0\]: .*\/bin\/sh is linked dynamically.*hooks\.createContainer\[1\]: .*hook\.sh is a script/,
  );
});
