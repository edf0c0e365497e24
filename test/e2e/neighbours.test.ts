/** Containers that name another one's namespaces, as Podman's pods and `--network container:` do: they are in one virtual machine, and each is a container of its own. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { describe, expect } from "vitest";
import type { Bundle } from "../harness/bundle.ts";
import { type Host, test } from "../harness/host.ts";
import { makeNetwork } from "../harness/network.ts";
import { either, isHusk } from "../harness/runtime.ts";
import { findPart, killPart } from "../harness/sandbox-processes.ts";
import type { Json } from "../harness/spec.ts";

/** The end is reported within a second where the machine is idle; tests are given more. */
const reportedMs = 5_000;

/** Those namespaces of the process `pid`, and others of one's own. */
function namespacesOf(pid: number, types: readonly string[]): readonly Json[] {
  return ["network", "ipc", "uts", "pid", "mount"].map((type) =>
    types.includes(type) ? { type, path: `/proc/${pid}/ns/${type === "network" ? "net" : type}` } : { type },
  );
}

/** A bundle whose script runs in them. */
function scriptBeside(host: Host, pid: number, types: readonly string[], script: string, changes: Json = {}): Bundle {
  const linux = { namespaces: namespacesOf(pid, types), ...(changes["linux"] as Json | undefined) };
  return host.script(script, { hostname: undefined, ...changes, linux });
}

/** Starts a container in the background; answers once its standard output says "ready". */
async function inBackground(host: Host, bundle: Bundle) {
  const { id, program } = await host.create(bundle);
  await host.ok("start", id);
  await program.stdout?.until("ready\n");
  return { id, program, pid: (await host.state(id)).pid };
}

const identities = "for type in net ipc uts; do readlink /proc/self/ns/$type; done; hostname";

test("network, IPC and UTS namespaces: the same ones, as in a pod; mounts and processes of its own", async ({ host }) => {
  const script = `${identities}; echo page >/tmp/index.html; httpd -p 127.0.0.1:80 -h /tmp; echo ready; read line`;
  const first = await host.running(host.script(script, { hostname: "pod" }), { stdin: "pipe" });
  const { pid } = await host.state(first.id);
  const second = await host.run(
    scriptBeside(host, pid, ["network", "ipc", "uts"], `${identities}; wget -q -O - http://127.0.0.1/; ls /tmp; ps -o comm | grep -c http`),
  );
  expect(second.stderr).toBe("");
  expect(second.stdout).toBe(`${first.foreground.stdout?.text().replace("ready\n", "")}page\n0\n`);
  first.foreground.stdin.end("\n");
  expect((await first.foreground.ended()).status).toBe(0);
});

test("a PID namespace: who joins it sees and signals its processes, and ends with its first", async ({ host }) => {
  const first = await host.running(host.script("trap 'echo told; exit 3' USR1; echo ready; while :; do sleep 1000 & wait; done"));
  const { pid } = await host.state(first.id);
  const beside = (script: string) => scriptBeside(host, pid, ["network", "pid"], script);
  const second = await host.running(beside("echo ready; exec sleep 1000"));
  const third = await host.run(beside("ps -o comm | grep -c ^sleep; kill -USR1 1"));
  expect(third).toMatchObject({ stdout: "2\n", stderr: "" }); // it ends by itself, or with the first
  expect((await first.foreground.ended()).status).toBe(3);
  expect(await second.foreground.exited(reportedMs)).toBe(137);
});

test("user, time and cgroup namespaces can be joined as well", async ({ host }) => {
  const types = ["user", "time", "cgroup"];
  const script = `for type in ${types.join(" ")}; do readlink /proc/self/ns/$type; done; cat /proc/self/uid_map; echo ready; read line`;
  const mappings = [{ containerID: 0, hostID: 0, size: 2000 }];
  const namespaces = [...namespacesOf(0, []), ...types.map((type) => ({ type }))];
  const first = await host.running(host.script(script, { linux: { namespaces, uidMappings: mappings, gidMappings: mappings } }), {
    stdin: "pipe",
  });
  const { pid } = await host.state(first.id);
  const joined = [...namespacesOf(pid, ["network"]), ...types.map((type) => ({ type, path: `/proc/${pid}/ns/${type}` }))];
  const second = await host.run(host.script(script, { linux: { namespaces: joined } }));
  expect(second.stderr).toBe("");
  expect(second.stdout).toBe(first.foreground.stdout?.text());
  first.foreground.stdin.end("\n");
  expect((await first.foreground.ended()).status).toBe(0);
});

test("memory: containers that bind one tmpfs of the host have one in common, of its size", async ({ host }) => {
  const shm = host.path("shm");
  mkdirSync(shm);
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", shm]);
  host.defer(() => void execFileSync("umount", [shm]));
  const changes = { mounts: memoryFrom(shm) };
  const first = await host.running(host.script("echo from the first >/dev/shm/a; echo ready; read line; cat /dev/shm/b", changes), {
    stdin: "pipe",
  });
  const { pid } = await host.state(first.id);
  const script = "cat /dev/shm/a; echo from the second >/dev/shm/b; df -k /dev/shm | awk 'NR==2 {print $2}'";
  const second = await host.run(scriptBeside(host, pid, ["network", "ipc"], script, changes));
  expect(second).toEqual({ status: 0, stdout: "from the first\n1024\n", stderr: "" });
  const apart = await host.run(scriptBeside(host, pid, ["network"], "ls /dev/shm"));
  expect(apart.stdout).toBe("");
  first.foreground.stdin.end("\n");
  expect((await first.foreground.ended()).stdout).toBe("ready\nfrom the second\n");
});

test("each has a state, a PID, execs, signals and an end of its own; the first may go before the others", async ({ host }) => {
  const script = "trap 'exit 4' TERM; echo ready; while :; do sleep 1000 & wait; done";
  const first = await inBackground(host, host.script(script));
  const second = await inBackground(host, scriptBeside(host, first.pid, ["network"], script, { annotations: { a: "b" } }));
  const third = await inBackground(host, scriptBeside(host, second.pid, ["network"], script));
  expect(new Set([first.pid, second.pid, third.pid]).size).toBe(3);
  expect((await host.ok("list", "-q")).trim().split("\n").toSorted()).toEqual([first.id, second.id, third.id].toSorted());
  expect(await host.state(second.id)).toMatchObject({ status: "running", annotations: { a: "b" } });
  if (isHusk) {
    for (const { id } of [second, third]) expect(findPart(host, id, "qemu")?.pid).toBe(findPart(host, first.id, "qemu")?.pid);
    expect(await host.ok("ps", second.id)).not.toMatch(/husk/);
  }
  await host.ok("pause", second.id);
  expect((await host.state(second.id)).status).toBe("paused");
  expect((await host.state(third.id)).status).toBe("running");
  await host.ok("resume", second.id);

  await host.ok("kill", first.id);
  await host.until(async () => (await host.state(first.id)).status === "stopped");
  expect(await first.program.ended()).toMatchObject({ stdout: "ready\n" });
  await host.ok("delete", first.id);
  expect((await host.runtime("exec", second.id, "sh", "-c", "exit 6")).status).toBe(6);

  await host.ok("delete", "--force", second.id);
  expect((await host.runtime("exec", third.id, "sh", "-c", "exit 7")).status).toBe(7);
  const fourth = await host.run(scriptBeside(host, third.pid, ["network"], "exit 8"));
  expect(fourth.status).toBe(8);
  await host.ok("delete", "--force", third.id);
});

test("the foreground returns at its container's end, whoever else is there", async ({ host }) => {
  const first = await host.running(host.script("echo ready; read line; exit 5"), { stdin: "pipe" });
  const { pid } = await host.state(first.id);
  const second = await host.running(scriptBeside(host, pid, ["network"], "echo ready; read line; exit 6"), { stdin: "pipe" });
  first.foreground.stdin.end("\n");
  expect((await first.foreground.ended()).status).toBe(5);
  expect((await host.runtime("state", first.id)).status).toBe(1);
  expect((await host.state(second.id)).status).toBe("running");
  second.foreground.stdin.end("\n");
  expect((await second.foreground.ended()).status).toBe(6);
});

test("many that join at once", async ({ host }) => {
  const first = await host.running(host.script("echo ready; read line"), { stdin: "pipe" });
  const { pid } = await host.state(first.id);
  const others = [1, 2, 3, 4].map((number) =>
    host.run(scriptBeside(host, pid, ["network", "ipc", "uts"], `echo ${number}; exit ${number}`)),
  );
  expect(await Promise.all(others)).toEqual([1, 2, 3, 4].map((number) => ({ status: number, stdout: `${number}\n`, stderr: "" })));
  first.foreground.stdin.end("\n");
  expect((await first.foreground.ended()).status).toBe(0);
});

test("a named network namespace: its links are all containers' as long as one of them is there", async ({ host }) => {
  const network = await makeNetwork(host);
  network.ip("link set lo up");
  const inNetwork = (script: string) =>
    host.script(script, {
      linux: { namespaces: [...["pid", "ipc", "uts", "mount"].map((type) => ({ type })), { type: "network", path: network.path }] },
    });
  const first = await inBackground(host, inNetwork("echo ready; exec sleep 1000"));
  const serve = "echo page >/tmp/index.html; httpd -p 8080 -h /tmp; cat /sys/class/net/eth0/address; echo ready; exec sleep 1000";
  const second = await inBackground(host, inNetwork(serve));
  await host.ok("delete", "--force", first.id);
  const fetch = (target: string, address: string) =>
    host.start("nsenter", [target, "busybox", "wget", "-q", "-O", "-", `http://${address}:8080/`]).ended();
  expect((await fetch(`--net=/proc/${network.neighbour.pid}/ns/net`, "10.93.7.2")).stdout).toBe("page\n");
  if (isHusk) expect((await fetch(`--net=${network.path}`, "127.0.0.1")).stdout).toBe("page\n");
  await host.ok("delete", "--force", second.id);
  expect(network.ip("-o link")).not.toMatch(/husk/);
  await network.close();
});

describe.runIf(isHusk)("faults", () => {
  test.for(["supervisor", "qemu"] as const)("kill -9 of the %s: every container ends, and all is given back", async (part, { host }) => {
    const first = await inBackground(host, host.script("echo ready; exec sleep 1000"));
    const beside = () => scriptBeside(host, first.pid, ["network"], "echo ready; exec sleep 1000");
    const second = await inBackground(host, beside());
    const third = await host.running(beside());
    await killPart(host, first.id, part);
    expect(await third.foreground.exited(reportedMs)).toBe(137);
    await Promise.all([first.program.ended(reportedMs), second.program.ended(reportedMs)]);
    await host.until(async () => (await host.runtime("state", third.id)).status === 1); // it was the foreground's
    for (const { id } of [first, second]) {
      await host.until(async () => (await host.state(id)).status === "stopped");
      expect(await host.state(id)).toMatchObject({ pid: 0, exit: { signal: 9 } });
      await host.ok("delete", id);
    }
  });

  test("a caller that is killed while its container is made: nothing is left, and the others go on", async ({ host }) => {
    const first = await inBackground(host, host.script("echo ready; exec sleep 1000"));
    const hook = { path: "/bin/sh", args: ["sh", "-c", `echo >${host.path("begun")}; sleep 3`] };
    const bundle = scriptBeside(host, first.pid, ["network"], "echo never", { hooks: { createRuntime: [hook] } });
    const create = host.launch(["create", "--bundle", bundle.path, "late"]);
    await host.until(() => existsSync(host.path("begun")));
    create.signal("SIGTERM");
    expect(await create.exited()).toBe(1);
    expect(await host.ok("list", "-q")).toBe(`${first.id}\n`);
    expect((await host.runtime("exec", first.id, "sh", "-c", "exit 6")).status).toBe(6);
    await host.ok("delete", "--force", first.id);
  });

  test("a container that cannot be made takes none of the others with it", async ({ host }) => {
    const first = await inBackground(host, host.script("echo ready; exec sleep 1000"));
    const bundle = host.bundle({ process: { args: ["nosuch"] }, linux: { namespaces: namespacesOf(first.pid, ["network"]) } });
    const second = await host.runtime("run", "--bundle", bundle.path, "broken");
    expect(second).toMatchObject({
      status: 127,
      stderr: expect.stringMatching(/^husk: .*"nosuch": executable file not found in \$PATH\n$/),
    });
    expect(readdirSync(host.root)).toEqual([first.id]);
    expect((await host.runtime("exec", first.id, "sh", "-c", "exit 6")).status).toBe(6);
    await host.ok("delete", "--force", first.id);
  });
});

test("what cannot be joined is refused by name", async ({ host }) => {
  const first = await inBackground(host, host.script("echo ready; exec sleep 1000"));
  const refusal = async (types: readonly string[], pid: number, changes: Json = {}) => {
    const { status, stderr } = await host.run(scriptBeside(host, pid, types, "echo never", changes));
    expect(status).not.toBe(0);
    return stderr;
  };
  if (isHusk) {
    expect(await refusal(["ipc"], first.pid)).toBe(
      `husk: config.json: linux.namespaces[1].path: /proc/${first.pid}/ns/ipc: only containers of the same virtual machine can share it: name the network namespace of the one that has it as well\n`,
    );
    expect(await refusal(["network"], first.pid, { linux: { resources: { memory: { limit: 1024 ** 4 } } } })).toMatch(
      /^husk: linux\.resources\.memory\.limit: it needs a virtual machine with \d+ MiB of memory, and this one can have \d+ MiB at most \(see vm\.max_memory.*\)\n$/,
    );
    expect(await refusal(["network"], first.pid, { linux: { resources: { cpu: { cpus: "0" } } } })).toBe(
      "husk: config.json: linux.resources.cpu.cpus: it acts on the virtual machine, which is that of the container whose network namespace is named\n",
    );
  }
  await host.ok("delete", "--force", first.id);
  expect(await refusal(["network"], first.pid)).toMatch(
    either({ husk: /^husk: config\.json: linux\.namespaces: \/proc\/\d+\/ns\/net is no namespace \(.*\)\n$/, runc: /no such file/ }),
  );
});

/** The default's mounts with /dev/shm from a folder of the host. */
function memoryFrom(folder: string): readonly Json[] {
  return [
    { destination: "/proc", type: "proc", source: "proc" },
    { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755", "size=65536k"] },
    { destination: "/dev/shm", type: "bind", source: folder, options: ["bind", "nosuid", "nodev", "noexec"] },
  ];
}
