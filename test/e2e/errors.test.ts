/** What goes wrong before a container runs, or is asked of the wrong one: one clear line, the right status, and nothing left behind. */
import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { promisify } from "node:util";
import { describe, expect } from "vitest";
import { type Bundle, writeConfig, writeProgram } from "../harness/bundle.ts";
import { type Host, test } from "../harness/host.ts";
import { either, isHusk, program } from "../harness/runtime.ts";

/** Runs a bundle that must fail before its program does: husk's words, and runc's failure at least. */
async function expectFailure(host: Host, bundle: Bundle, status: number, message: string | RegExp): Promise<void> {
  const result = await host.run(bundle);
  expect(result.stdout).toBe("");
  if (isHusk) {
    expect(result.stderr).toMatch(typeof message === "string" ? `husk: ${message}\n` : message);
    if (typeof message === "string") expect(result.stderr).toBe(`husk: ${message}\n`);
    expect(result.stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(result.status).toBe(status);
  } else {
    expect(result.status).toBe(1);
    expect(result.stderr).not.toBe("");
  }
}

test("a bundle that is missing, empty, or has a config.json that cannot be read", async ({ host }) => {
  const bundle = host.bundle();
  const config = `${bundle.path}/config.json`;
  await expectFailure(host, { path: host.path("nope"), rootfs: "" }, 125, `bundle ${host.path("nope")} does not exist`);
  rmSync(config);
  await expectFailure(host, bundle, 125, `bundle ${bundle.path} has no config.json (make one with \`husk spec\`)`);
  writeFileSync(config, '{\n  "ociVersion": "1.0.2",\n  "process": {,\n}');
  await expectFailure(host, bundle, 125, `config.json: line 3, column 15: expected a property's name in double quotes, got ","`);
  writeFileSync(config, "");
  await expectFailure(host, bundle, 125, /^husk: config\.json: line 1, column 1: .+\n$/);
  writeConfig(bundle, { process: { args: "sh" } });
  await expectFailure(host, bundle, 125, `config.json: process.args: expected a list, got "sh"`);
  writeConfig(bundle, { process: { user: { uid: -1 } } });
  await expectFailure(host, bundle, 125, "config.json: process.user.uid: expected a whole number from 0 to 4294967294, got -1");
  writeConfig(bundle, { root: { path: "nowhere" } });
  await expectFailure(host, bundle, 125, /^husk: (config\.json: )?root\.path: \S+\/nowhere (does not exist|cannot be read).*\n$/);
  expect(await host.ok("list", "-q")).toBe("");
});

test("args[0] that does not exist: 127; that cannot be executed: 126", async ({ host }) => {
  const cases: [string, number, string | RegExp][] = [
    ["nope", 127, 'exec "nope": executable file not found in $PATH'],
    ["/bin/nope", 127, 'exec "/bin/nope": no such file or directory'],
    ["/etc/passwd", 126, 'exec "/etc/passwd": permission denied'],
    ["/etc", 126, 'exec "/etc": is a directory'],
    ["/bin/orphan", 127, 'exec "/bin/orphan": its interpreter "/no/such/interpreter" does not exist in the container'],
    ["/bin/garbage", 126, 'exec "/bin/garbage": exec format error'],
  ];
  for (const [program, status, message] of cases) {
    const bundle = host.bundle({ process: { args: [program] } });
    writeProgram(bundle, "bin/orphan", "#!/no/such/interpreter\n");
    writeProgram(bundle, "bin/garbage", "\u0001\u0002\u0003\u0004");
    await expectFailure(host, bundle, status, message);
  }
});

test("a cwd that does not exist is made, as runc does; one that is a file is refused", async ({ host }) => {
  expect(await host.run(host.bundle({ process: { args: ["pwd"], cwd: "/made/for/it" } }))).toEqual({
    status: 0,
    stdout: "/made/for/it\n",
    stderr: "",
  });
  await expectFailure(host, host.bundle({ process: { args: ["pwd"], cwd: "/etc/passwd" } }), 125, /^husk: .*\/etc\/passwd.*\n$/);
});

test.runIf(isHusk)("--systemd-cgroup without systemd says so in one line, and leaves nothing", async ({ host }) => {
  const words = ["--root", host.root, "--systemd-cgroup", "run", "--bundle", host.script("echo never").path, "c"];
  const env = { ...process.env, DBUS_SYSTEM_BUS_ADDRESS: "unix:path=/nonexistent/bus" };
  const failed = await promisify(execFile)(program, words, { env }).catch((error: unknown) => error);
  expect(failed).toMatchObject({
    code: 125,
    stdout: "",
    stderr: "husk: cannot make the scope husk-c.scope: connect ENOENT /nonexistent/bus (without systemd, leave --systemd-cgroup out)\n",
  });
  expect(await host.ok("list", "-q")).toBe("");
});

test("operations on a container that does not exist", async ({ host }) => {
  for (const verb of ["state", "start", "kill", "delete", "pause", "resume", "ps", "exec"]) {
    const result = await host.runtime(verb, "nope", ...(verb === "exec" ? ["true"] : []));
    const status = verb === "exec" ? 255 : 1;
    expect({ verb, ...result }).toEqual({
      verb,
      status,
      stdout: "",
      stderr: either<unknown>({
        husk: `husk: ${verb === "kill" ? "error sending signal TERM: " : ""}container "nope" does not exist\n`,
        runc: expect.stringContaining("container does not exist"),
      }),
    });
  }
  expect(await host.ok("delete", "--force", "nope")).toBe("");
});

test("operations that the container's state does not allow", async ({ host }) => {
  const bundle = host.script("echo ready; read line");
  const feed = host.feed();
  const { id, program } = await host.create(bundle, [], { stdin: feed.reader });
  const refused = async (words: { readonly husk: string; readonly runc: string }, ...args: string[]): Promise<void> => {
    const { status, stdout, stderr } = await host.runtime(...args);
    expect({ status, stdout, stderr }).toEqual({
      status: 1,
      stdout: "",
      stderr: either<unknown>({ husk: `husk: ${words.husk}\n`, runc: expect.stringContaining(words.runc) }),
    });
  };
  await refused({ husk: `container "${id}" already exists`, runc: "already exists" }, "create", "--bundle", bundle.path, id);
  await host.ok("start", id);
  await program.stdout?.until("ready\n");
  await refused(
    { husk: `cannot start an already running container: ${id}`, runc: "cannot start an already running container" },
    "start",
    id,
  );
  await refused({ husk: `cannot delete container ${id} that is not stopped: running`, runc: "is not stopped: running" }, "delete", id);
  await refused({ husk: `container not paused: ${id}: running`, runc: "container not paused" }, "resume", id);
  expect(await host.runtime("kill", id, "NOPE")).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("unknown signal"),
  });
  feed.end();
  await program.ended();
  await host.until(async () => (await host.state(id)).status === "stopped");
  await refused({ husk: `error sending signal TERM: container not running: ${id}`, runc: "container not running" }, "kill", id, "TERM");
  await refused(
    { husk: `cannot start a container that has stopped: ${id}`, runc: "cannot start a container that has stopped" },
    "start",
    id,
  );
  await refused({ husk: `container not running: ${id}: stopped`, runc: "container not running" }, "pause", id);
  await host.ok("delete", id);
});

test("ids that are no plain names", async ({ host }) => {
  for (const id of ["../x", "a/b", ".", ""]) {
    const { status, stdout } = await host.runtime("run", "--bundle", host.bundle().path, id);
    expect({ id, status, stdout }).toEqual({ id, status: either({ husk: 125, runc: 1 }), stdout: "" });
  }
});

describe.runIf(isHusk)("husk's own words", () => {
  test("unknown commands and flags, with the nearest ones; too many and too few arguments", async ({ host }) => {
    const cases: [string[], string][] = [
      [["strat", "x"], 'unknown command "strat"; did you mean start?'],
      [["frobnicate"], 'unknown command "frobnicate" (see `husk --help`)'],
      [["run", "--bundel", ".", "x"], 'unknown flag --bundel for "run"; did you mean --bundle?'],
      [["exec", "--tyt", "x", "sh"], 'unknown flag --tyt for "exec"; did you mean --tty?'],
      [["delete", "--focre", "x"], 'unknown flag --focre for "delete"; did you mean --force?'],
      [["run"], '"run" takes exactly 1 argument, got 0 (husk run [flags] <container-id>)'],
      [["start", "a", "b"], '"start" takes exactly 1 argument, got 2 (husk start [flags] <container-id>)'],
      [["run", "--accel", "hvf", "x"], '--accel: expected kvm, tcg or auto, got "hvf"'],
      [["run", "--bundle"], 'flag --bundle needs a value for "run"'],
    ];
    const statuses: Readonly<Record<string, number>> = { run: 125, exec: 255 };
    for (const [args, message] of cases)
      expect(await host.runtime(...args)).toEqual({ status: statuses[args[0] ?? ""] ?? 1, stdout: "", stderr: `husk: ${message}\n` });
  });

  test("every verb has a help with examples", async ({ host }) => {
    const own = await host.ok("--help");
    const verbs = [...own.matchAll(/^ {2}([a-z]+) {2,}/gm)].map(([, verb]) => verb ?? "");
    expect(verbs).toEqual(
      expect.arrayContaining(["spec", "run", "create", "start", "state", "kill", "delete", "exec", "list", "ps", "pause", "resume"]),
    );
    expect(verbs).toEqual(expect.arrayContaining(["doctor", "logs", "gc", "version", "config"]));
    for (const verb of verbs)
      expect(await host.ok(verb, "--help")).toMatch(new RegExp(`^husk ${verb} - [^]*Usage: husk [^]*Examples:\\n[^]*husk `));
  });

  test("fields that no virtual machine can give are refused by name, all at once, before anything starts", async ({ host }) => {
    const bundle = host.bundle({
      linux: {
        intelRdt: { closID: "x" },
        resources: { rdma: { dev: { hcaHandles: 1 } } },
        namespaces: [{ type: "pid" }, { type: "mount" }, { type: "ipc" }, { type: "uts" }],
      },
    });
    await expectFailure(
      host,
      bundle,
      125,
      "config.json: linux.intelRdt: the host's resctrl groups cannot hold processes of a guest; linux.resources.rdma: the guest has no RDMA devices; " +
        'linux.namespaces: a VM cannot share the host\'s network: leave out --network host (hostNetwork of a pod), or add a namespace of type "network"',
    );
  });

  test("the error is in the log as well, as engines read it", async ({ host }) => {
    const log = host.path("log.json");
    const flags = ["--log", log, "--log-format", "json"];
    const { status } = await host.runtime(...flags, "create", "--bundle", host.path("nope"), "c");
    expect(status).toBe(1);
    expect(JSON.parse(readFileSync(log, "utf8").trimEnd().split("\n").at(-1) ?? "")).toEqual({
      level: "error",
      msg: `bundle ${host.path("nope")} does not exist`,
      time: expect.stringMatching(/^20.*Z$/),
    });
  });
});

test.runIf(isHusk)("a damaged record hides no other container, and delete --force removes it", async ({ host }) => {
  const { id, program } = await host.create(host.script("true"));
  mkdirSync(`${host.root}/broken`);
  writeFileSync(`${host.root}/broken/state.json`, "{");
  const { status, stdout, stderr } = await host.runtime("list", "-q");
  expect({ status, stdout }).toEqual({ status: 0, stdout: `${id}\n` });
  expect(stderr).toMatch(
    /^husk: warning: the state of container "broken" in \S+ cannot be read: .+ \(`husk delete --force broken` removes what is left of it\)\n$/,
  );
  await host.ok("delete", "--force", "broken");
  await host.ok("delete", "--force", id);
  await program.ended();
});
