/** Terminals: a person at a keyboard, driven by a real pty. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { expect } from "vitest";
import { type Bundle, writeProgram } from "../harness/bundle.ts";
import { type Host, test } from "../harness/host.ts";
import { globalFlags, program } from "../harness/runtime.ts";
import { Terminal } from "../harness/terminal.ts";

/** A bundle with an interactive shell whose prompt is "$ ". */
function shellBundle(host: Host, terminal = true): Bundle {
  return host.bundle({ process: { terminal, args: ["sh", "-i"], env: ["PATH=/bin", "PS1=$ ", "TERM=dumb", "HOME=/root"] } });
}

async function openShell(host: Host, bundle = shellBundle(host)): Promise<Terminal> {
  const terminal = Terminal.run(host, ["run", "--bundle", bundle.path, "shell"]);
  await terminal.screen.until("$ ");
  return terminal;
}

/** Starts a program in the foreground of the shell, and waits until it has the terminal. */
async function begin(terminal: Terminal, command: string): Promise<void> {
  terminal.type(`begin ${command}\n`);
  await terminal.screen.until("\r\nbegun\r\n");
}

test("a terminal whose output goes through a pipe puts no carriage returns into it", async ({ host }) => {
  const bundle = host.bundle({ process: { terminal: true, args: ["sh", "-c", "echo one; stty -a | grep -o '.onlcr'"] } });
  const words = [program, ...globalFlags, "--root", host.root];
  const piped = async (...args: readonly string[]): Promise<string> => {
    const terminal = Terminal.around(host, ["sh", "-c", `"$@" | tr '\\r\\n' RN; echo .`, "sh", ...words, ...args]);
    return (await terminal.process.ended()).stdout;
  };
  expect(await piped("run", "--bundle", bundle.path, "piped")).toBe("oneN-onlcrN.\r\n");
  const { id, foreground } = await host.running(host.script("echo ready; read line"), { stdin: "pipe" });
  expect(await piped("exec", "-t", id, "echo", "two")).toBe("twoN.\r\n");
  foreground.stdin.end("\n");
  await foreground.ended();
});

test("a session: a terminal of the right size, resized, with job control", async ({ host }) => {
  const bundle = shellBundle(host);
  const watch = "trap 'echo \"resized to $(stty size)\"; kill $!; exit' WINCH; echo watching; sleep 1000 & wait";
  writeProgram(bundle, "bin/watch-size", `#!/bin/sh\n${watch}\n`);
  writeProgram(bundle, "bin/begin", '#!/bin/sh\necho begun\nexec "$@"\n');
  const terminal = await openShell(host, bundle);
  expect(await terminal.command("tty")).toBe("/dev/pts/0\n");
  expect(await terminal.command("stty size")).toBe("24 80\n");

  terminal.type("watch-size\n");
  await terminal.screen.until("watching\r\n");
  terminal.resize(40, 132);
  await terminal.screen.until("resized to 40 132\r\n");
  await terminal.screen.until("$ ");

  await begin(terminal, "sleep 1000; echo not reached");
  terminal.type("\u0003"); // Ctrl-C
  await terminal.screen.until("$ ");
  expect(await terminal.command("echo $?")).toBe("130\n");

  await begin(terminal, "cat");
  terminal.type("typed\n");
  await terminal.screen.until("typed\r\ntyped\r\n");
  terminal.type("\u0004"); // Ctrl-D
  await terminal.screen.until("$ ");

  await begin(terminal, "sleep 1000");
  terminal.type("\u001a"); // Ctrl-Z
  await terminal.screen.until(/Stopped +begin sleep 1000\r\n/);
  await terminal.screen.until("$ ");
  expect(await terminal.command("jobs")).toMatch(/^\[1\]\+ +Stopped +begin sleep 1000\n$/);
  expect(await terminal.command("bg %1")).toMatch(/begin sleep 1000\n$/);
  expect(await terminal.command("jobs")).toMatch(/^\[1\]\+ +Running +begin sleep 1000\n$/);
  expect(await terminal.command("kill %1; wait; echo ended")).toContain("ended\n");

  terminal.type("exit 9\n");
  expect((await terminal.process.ended()).status).toBe(9);
});

test("Ctrl-D at the prompt ends the session", async ({ host }) => {
  const terminal = await openShell(host);
  terminal.type("\u0004");
  expect((await terminal.process.ended()).status).toBe(0);
});

test("the caller's terminal is as before when the runtime has ended", async ({ host }) => {
  const bundle = shellBundle(host);
  const run = [program, ...globalFlags, "--root", host.root, "run", "--bundle", bundle.path, "s"].join(" ");
  const terminal = Terminal.around(host, ["sh", "-c", `stty -a >${host.path("before")}; ${run}; stty -a >${host.path("after")}`]);
  await terminal.screen.until("$ ");
  terminal.type("exit\n");
  expect((await terminal.process.ended()).status).toBe(0);
  expect(readFileSync(host.path("after"), "utf8")).toBe(readFileSync(host.path("before"), "utf8"));
});

test("a lot of output reaches the terminal whole", async ({ host }) => {
  const bundle = shellBundle(host);
  const lines = Array.from({ length: 5000 }, (_, i) => `line ${i} of many, none of which is lost\n`).join("");
  writeFileSync(`${bundle.rootfs}/lines`, lines);
  const terminal = await openShell(host, bundle);
  expect((await terminal.command("cat /lines")) === lines).toBe(true);
  terminal.type("exit\n");
  expect((await terminal.process.ended()).status).toBe(0);
});

test("a terminal that goes away hangs the container's up", async ({ host }) => {
  const bundle = host.script("trap 'echo hung up >/hup; exit' HUP; echo '$ '; while :; do sleep 1000 & wait; done", {
    process: { terminal: true },
  });
  const terminal = await openShell(host, bundle);
  terminal.hangUp();
  await terminal.process.ended();
  await host.until(() => !existsSync(`${host.root}/shell`));
  expect(readFileSync(`${bundle.rootfs}/hup`, "utf8")).toBe("hung up\n");
});

test("exec -t in a container without one", async ({ host }) => {
  const { id, foreground } = await host.running(host.script("echo ready; read line; tty"), { stdin: "pipe" });
  const script = "trap 'stty size; exit 3' WINCH; stty size; tty; while :; do sleep 1000 </dev/null >/dev/null 2>&1 & wait; done";
  const terminal = Terminal.run(host, ["exec", "-t", id, "sh", "-c", script]);
  await terminal.screen.until("24 80\r\n/dev/pts/0\r\n");
  terminal.resize(30, 100);
  await terminal.screen.until("30 100\r\n");
  expect((await terminal.process.ended()).status).toBe(3);
  foreground.stdin.end("\n");
  expect(await foreground.ended()).toMatchObject({ status: 1, stdout: "ready\nnot a tty\n" });
});

test("create hands the terminal to its console socket, as conmon asks", async ({ host }) => {
  const socket = host.path("console.sock");
  const terminal = await Terminal.receive(host, socket);
  const { id, program } = await host.create(shellBundle(host), ["--console-socket", socket]);
  expect(await terminal.process.stderr?.line()).toMatch(/^\/dev\/(pts\/\d+|ptmx)$/);
  await program.ended(); // create's own streams are not the container's
  terminal.resize(50, 150);
  await host.ok("start", id);
  await terminal.screen.until("$ ");
  expect(await terminal.command("stty size")).toBe("50 150\n");
  terminal.type("exit 5\n");
  await terminal.process.ended();
  await host.until(async () => (await host.state(id)).status === "stopped");
  await host.ok("delete", id);
});

test("exec hands its terminal to a console socket, in the background", async ({ host }) => {
  const { id, foreground } = await host.running(host.script("echo ready; read line"), { stdin: "pipe" });
  const socket = host.path("console.sock");
  const terminal = await Terminal.receive(host, socket);
  const exec = host.launch(["exec", "-d", "-t", "--console-socket", socket, "--pid-file", host.path("pid"), "-e", "PS1=$ ", id, "sh"]);
  expect(await exec.ended()).toEqual({ status: 0, stdout: "", stderr: "" });
  await terminal.screen.until("$ ");
  expect(await terminal.command("tty")).toBe("/dev/pts/0\n");
  process.kill(Number(readFileSync(host.path("pid"), "utf8")), "SIGKILL");
  await terminal.process.ended();
  foreground.stdin.end("\n");
  expect((await foreground.ended()).status).toBe(0);
});

test("a terminal without anywhere to go is refused", async ({ host }) => {
  const bundle = shellBundle(host);
  const { status, stderr } = await host.runtime("create", "--bundle", bundle.path, "c");
  expect(status).not.toBe(0);
  expect(stderr).toMatch(/console.socket/);
});
