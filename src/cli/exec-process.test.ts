import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { stringifyJson } from "../oci/json.ts";
import { parseBeginning, parseCommandLine } from "./command-line.ts";
import { execProcess } from "./exec-process.ts";
import { type ExecOptions, sessionCall } from "./session-options.ts";

let bundle: string;
beforeEach(() => {
  bundle = mkdtempSync(join(tmpdir(), "husk-exec-"));
});
afterEach(() => rmSync(bundle, { recursive: true }));

const init = {
  terminal: true,
  consoleSize: { height: 24, width: 80 },
  user: { uid: 5, gid: 6, additionalGids: [7], username: "windows" },
  args: ["init"],
  env: ["PATH=/bin", "A=1"],
  cwd: "/srv",
  capabilities: { bounding: ["CAP_KILL"], effective: ["CAP_KILL"], inheritable: ["CAP_KILL"] },
  rlimits: [],
  noNewPrivileges: false,
  apparmorProfile: "guards-the-host",
};

function writeBundle(change: object = {}): void {
  writeFileSync(join(bundle, "config.json"), JSON.stringify({ ociVersion: "1.2.0", root: { path: "r" }, process: { ...init, ...change } }));
}

function options(...words: string[]): ExecOptions {
  const call = sessionCall(parseCommandLine(parseBeginning(["exec", ...words])));
  if (call.verb !== "exec") throw new Error("no exec");
  return call;
}

describe("a process from flags", () => {
  it("is the container's own with another program, and without a terminal", async () => {
    writeBundle();
    const { process, terminal, notes } = await execProcess(options("box", "ls", "-l"), bundle);
    expect(process).toEqual({
      terminal: false,
      user: { uid: 5, gid: 6, additionalGids: [7] },
      args: ["ls", "-l"],
      env: ["PATH=/bin", "A=1"],
      cwd: "/srv",
      capabilities: { bounding: ["CAP_KILL"], effective: ["CAP_KILL"], inheritable: ["CAP_KILL"] },
      rlimits: [],
      noNewPrivileges: false,
    });
    expect(terminal).toBe(false);
    expect(notes).toEqual([]);
  });

  it("has what the flags say", async () => {
    writeBundle();
    const flags = ["-t", "-u", "1:2", "-g", "3", "-e", "A=2", "--cwd", "/", "-c", "CAP_KILL", "-c", "CAP_CHOWN", "--no-new-privs"];
    const { process, terminal } = await execProcess(options(...flags, "box", "sh"), bundle);
    expect(process).toMatchObject({
      terminal: true,
      user: { uid: 1, gid: 2, additionalGids: [7, 3] },
      env: ["PATH=/bin", "A=2"],
      cwd: "/",
      capabilities: {
        bounding: ["CAP_KILL", "CAP_CHOWN"],
        effective: ["CAP_KILL", "CAP_CHOWN"],
        permitted: ["CAP_KILL", "CAP_CHOWN"],
        ambient: ["CAP_KILL", "CAP_CHOWN"],
        inheritable: ["CAP_KILL"],
      },
      noNewPrivileges: true,
    });
    expect(process.consoleSize).toBeUndefined();
    expect(terminal).toBe(true);
  });

  it("keeps the group where only the user is given, and leaves names to the guest", async () => {
    writeBundle();
    expect((await execProcess(options("-u", "1", "box", "id"), bundle)).process.user).toEqual({ uid: 1, gid: 6, additionalGids: [7] });
    expect((await execProcess(options("-u", "nobody", "box", "id"), bundle)).process.user).toMatchObject({ username: "nobody" });
  });

  it("in the background cannot have the caller's terminal", async () => {
    writeBundle();
    await expect(execProcess(options("-t", "-d", "box", "sh"), bundle)).rejects.toThrow(
      "a terminal in the background needs --console-socket",
    );
    const { terminal } = await execProcess(options("-t", "-d", "--console-socket", "/c", "box", "sh"), bundle);
    expect(terminal).toBe(true);
  });

  it("is refused by name where it asks what a guest cannot give", async () => {
    writeBundle({ commandLine: "cmd.exe" });
    await expect(execProcess(options("box", "sh"), bundle)).rejects.toThrow("config.json: process.commandLine: ");
  });
});

describe("a process from a file", () => {
  it("is that process, whatever the flags, with every digit of its numbers", async () => {
    const file = join(bundle, "process.json");
    writeFileSync(
      file,
      `{"terminal":true,"consoleSize":{"height":5,"width":6},"user":{"uid":1,"gid":1},"args":["x"],"cwd":"/","odd":1,"selinuxLabel":"l",
        "rlimits":[{"type":"RLIMIT_CORE","soft":18446744073709551615,"hard":18446744073709551615}]}`,
    );
    const { process, terminal, notes } = await execProcess(options("--process", file, "-e", "A=1", "-u", "nobody", "box"), bundle);
    expect(process).toMatchObject({ args: ["x"], user: { uid: 1, gid: 1 }, consoleSize: { height: 5, width: 6 } });
    expect(process.user.username).toBeUndefined();
    expect(process.env).toBeUndefined();
    expect(stringifyJson(process)).toContain(`"hard":18446744073709551615`);
    expect(terminal).toBe(true);
    expect(notes).toEqual([
      expect.stringContaining("process.selinuxLabel: "),
      `${file}: odd is no property of the runtime spec and was ignored`,
    ]);
  });

  it("without a terminal has no use for a console socket", async () => {
    const file = join(bundle, "process.json");
    writeFileSync(file, `{"user":{"uid":1,"gid":1},"args":["x"],"cwd":"/"}`);
    await expect(execProcess(options("--process", file, "--console-socket", "/c", "box"), bundle)).rejects.toThrow(
      "--console-socket is for a process with a terminal, and this one has none",
    );
  });
});
