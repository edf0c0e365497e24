import { resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { parseBeginning, parseCommandLine } from "./command-line.ts";
import { type SessionCall, sessionCall } from "./session-options.ts";

const parseSession = (words: readonly string[]): SessionCall => sessionCall(parseCommandLine(parseBeginning(words)));

describe("run and create", () => {
  it("makes paths absolute, from the caller's working directory", () => {
    expect(
      parseSession(["run", "-b", "b", "--pid-file=p", "--console-socket", "/c", "-d", "--accel", "tcg", "--trace", "box"]),
    ).toMatchObject({
      verb: "run",
      id: "box",
      bundle: resolve("b"),
      pidFile: resolve("p"),
      consoleSocket: "/c",
      detach: true,
      keep: false,
      accel: "tcg",
      trace: true,
      meaningless: [],
    });
  });

  it("takes the current directory where no bundle is named", () => {
    expect(parseSession(["create", "box"])).toMatchObject({ verb: "create", bundle: process.cwd(), accel: undefined });
  });

  it("takes what engines pass to runc, and tells what means nothing", () => {
    const call = parseSession(["create", "--bundle", "/b", "--no-pivot", "--no-new-keyring", "--preserve-fds", "0", "box"]);
    expect(call).toMatchObject({ meaningless: ["--no-pivot", "--no-new-keyring"] });
  });

  it.each([
    [["run", "a/b"], `invalid container ID format: "a/b"`],
    [["create", ""], "container id cannot be empty"],
    [["run", "--accel", "xen", "box"], `--accel: expected kvm, tcg or auto, got "xen"`],
    [["run", "--preserve-fds", "2", "box"], "--preserve-fds 2: open files of the host cannot be passed into a virtual machine"],
    [["create", "-d", "box"], `unknown flag -d for "create"`],
    [["list"], `"list" is no session`],
  ])("refuses %j", (words, message) => {
    expect(() => parseSession(words)).toThrow(expect.objectContaining({ message }));
  });

  it("answers help and version with the text", () => {
    expect(parseSession(["run", "--help"])).toMatchObject({ verb: "print", text: expect.stringContaining("husk run - create and run") });
    expect(parseSession(["--version"])).toMatchObject({ verb: "print", text: expect.stringMatching(/^husk version \d/) });
  });
});

describe("exec", () => {
  it("takes the program's own flags for the program", () => {
    expect(parseSession(["exec", "-t", "--cwd", "/x", "-e", "A=", "box", "sh", "-c", "echo $A"])).toMatchObject({
      verb: "exec",
      id: "box",
      args: ["sh", "-c", "echo $A"],
      tty: true,
      cwd: "/x",
      env: ["A="],
      user: undefined,
    });
  });

  it.each([
    ["7", { uid: 7, gid: undefined }],
    ["7:8", { uid: 7, gid: 8 }],
    ["0:0", { uid: 0, gid: 0 }],
    ["nobody", { name: "nobody" }],
    ["7:users", { name: "7:users" }],
  ])("takes the user %s", (text, user) => {
    expect(parseSession(["exec", "-u", text, "box", "id"])).toMatchObject({ user });
  });

  it("takes a process from a file, without a program", () => {
    expect(parseSession(["exec", "--process", "p.json", "--tty", "--console-socket", "/c", "-d", "box"])).toMatchObject({
      process: resolve("p.json"),
      args: [],
      detach: true,
    });
  });

  it.each([
    [["exec", "box"], "exec needs a program to run, or --process FILE"],
    [["exec"], `"exec" takes at least 1 argument, got 0`],
    [["exec", "-u", "4294967295", "box", "id"], `--user: expected a number below 4294967295, got "4294967295"`],
    [["exec", "-u", ":7", "box", "id"], `--user: expected USER or USER:GROUP, got ":7"`],
    [["exec", "-g", "staff", "box", "id"], `--additional-gids: expected a number below 4294967295, got "staff"`],
    [["exec", "-e", "A", "box", "id"], `--env: expected NAME=VALUE, got "A"`],
    [["exec", "-e", "=1", "box", "id"], `--env: expected NAME=VALUE, got "=1"`],
    [["exec", "--console-socket", "/c", "box", "id"], "--console-socket needs --tty: a program without a terminal has no console"],
  ])("refuses %j", (words, message) => {
    expect(() => parseSession(words)).toThrow(expect.objectContaining({ message }));
  });
});
