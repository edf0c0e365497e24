import { describe, expect, it } from "vitest";
import { type CommandLine, parseBeginning, parseCommandLine } from "./command-line.ts";

function parse(...words: string[]): CommandLine {
  return parseCommandLine(parseBeginning(words));
}

describe("the forms of flags", () => {
  it.each([
    [["-root", "/r", "list"]],
    [["-root=/r", "list"]],
    [["--root", "/r", "list"]],
    [["--root=/r", "list"]],
    [["--root=/x", "--root=/r", "--", "list"]],
  ])("%j", (words) => {
    expect(parse(...words)).toMatchObject({ verb: "list", globals: { root: "/r" } });
  });

  it("takes switches, short names, lists, numbers and values that look like flags", () => {
    expect(parse("run", "-d", "--keep=false", "-b", "-odd", "--preserve-fds", "0", "box")).toMatchObject({
      flags: { detach: true, keep: false, bundle: "-odd", "preserve-fds": 0, "pid-file": undefined },
      operands: ["box"],
    });
    expect(parse("exec", "-e", "A=1", "--env=B=2=3", "-t", "box", "sh")).toMatchObject({ flags: { env: ["A=1", "B=2=3"], tty: true } });
  });

  it("takes flags behind operands too, as runc does, but not behind exec's: they are the program's", () => {
    expect(parse("delete", "box", "--force")).toMatchObject({ operands: ["box"], flags: { force: true } });
    expect(parse("exec", "box", "ls", "-t", "--help")).toMatchObject({ operands: ["box", "ls", "-t", "--help"], flags: { tty: false } });
  });

  it("ends flags at --", () => {
    expect(parse("kill", "box", "--", "-9")).toMatchObject({ operands: ["box", "-9"] });
    expect(parse("exec", "box", "--", "-x")).toMatchObject({ operands: ["box", "--", "-x"] });
  });

  it("takes an empty value as none", () => {
    expect(parse("run", "--pid-file", "", "box")).toMatchObject({ flags: { "pid-file": undefined } });
  });
});

describe("what is asked", () => {
  it.each([
    [[], undefined],
    [["--help"], undefined],
    [["-h", "run"], undefined],
    [["help"], undefined],
    [["help", "run"], "run"],
    [["run", "--help"], "run"],
    [["run", "x", "y", "z", "-h"], "run"],
  ])("%j is help of %s", (words, of) => {
    expect(parse(...words)).toEqual({ verb: "help", of });
  });

  it.each([[["--version"]], [["-v"]], [["version"]], [["--debug", "-version", "list"]]])("%j is the version", (words) => {
    expect(parse(...words)).toMatchObject({ verb: "version" });
  });

  it("knows the global flags before the rest has been read", () => {
    const beginning = parseBeginning(["--root", "r", "--log", "/l", "--log-format=json", "--debug", "no-such-verb"]);
    expect(beginning.globals).toEqual({ root: `${process.cwd()}/r`, log: "/l", logFormat: "json", debug: true, systemdCgroup: false });
    expect(() => parseCommandLine(beginning)).toThrow(`unknown command "no-such-verb"`);
  });
});

describe("refusals", () => {
  it.each([
    [["run", "--bundel", "x", "y"], `unknown flag --bundel for "run"; did you mean --bundle?`],
    [["run", "-bundel=x", "y"], `unknown flag -bundel for "run"; did you mean --bundle?`],
    [["delete", "--forec", "x"], `unknown flag --forec for "delete"; did you mean --force?`],
    [["exec", "-td", "x", "sh"], `unknown flag -td for "exec"; did you mean -t -d?`],
    [["kill", "-9", "x"], `unknown flag -9 for "kill"; the signal follows the id: husk kill <container-id> 9`],
    [["list", "--zzzzzz"], `unknown flag --zzzzzz for "list"`],
    [["--rot", "/x", "list"], "unknown flag --rot; did you mean --root?"],
    [["--constructor", "list"], "unknown flag --constructor"],
    [["lits"], `unknown command "lits"; did you mean list?`],
    [["constructor"], `unknown command "constructor"`],
    [["--root"], "flag --root needs a value"],
    [["run", "x", "--bundle"], `flag --bundle needs a value for "run"`],
    [["run", "--detach=maybe", "x"], `--detach: expected true or false, got "maybe"`],
    [["run", "--preserve-fds", "-1", "x"], `--preserve-fds: expected a whole number, got "-1"`],
    [["state"], `"state" takes exactly 1 argument, got 0`],
    [["list", "x"], `"list" takes exactly 0 arguments, got 1`],
    [["kill"], `"kill" takes at least 1 argument, got 0`],
    [["kill", "a", "b", "c"], `"kill" takes at most 2 arguments, got 3`],
    [["--log-format", "xml", "list"], `--log-format: expected text or json, got "xml"`],
  ])("%j", (words, message) => {
    expect(() => parse(...words)).toThrow(expect.objectContaining({ message }));
  });

  it("takes crun's words for it, and runc's --criu", () => {
    expect(parse("--cgroup-manager=systemd", "--no-pivot", "list")).toMatchObject({ globals: { systemdCgroup: true } });
    expect(parse("--cgroup-manager", "cgroupfs", "--criu", "/usr/sbin/criu", "list")).toMatchObject({ globals: { systemdCgroup: false } });
    expect(() => parse("--cgroup-manager", "runit", "list")).toThrow(`--cgroup-manager: expected cgroupfs or systemd, got "runit"`);
    expect(parse("--log", "file:/l", "list")).toMatchObject({ globals: { log: "/l" } });
    expect(parse("create", "--no-subreaper", "box")).toMatchObject({ flags: { "no-subreaper": true } });
  });

  it("takes --systemd-cgroup before every verb, as engines give it", () => {
    expect(parse("--systemd-cgroup", "list")).toMatchObject({ verb: "list", globals: { systemdCgroup: true } });
    expect(parse("--systemd-cgroup=false", "list")).toMatchObject({ verb: "list", globals: { systemdCgroup: false } });
  });
});

describe("refused by name", () => {
  it.each([
    [["ps", "box", "-ef"], '"ps" takes no options of ps(1)'],
    [["run", "--config", "x.json", "box"], "--config is not supported: the bundle's own config.json is read, now and at each exec"],
    [["create", "--config=x.json", "box"], "--config is not supported: the bundle's own config.json is read"],
    [["delete", "--regex", "b.*"], "--regex is not supported: name one container a call"],
    [["kill", "--regex=b.*", "9"], "--regex is not supported: name one container a call"],
    [["--cgroup-manager", "disabled", "list"], "--cgroup-manager disabled is not supported: a sandbox is limited"],
    [["--log", "journald:husk", "list"], "--log journald: is not supported: errors are written to a file"],
    [["--log=syslog:husk", "list"], "--log syslog: is not supported"],
  ])("%j", (words, message) => {
    expect(() => parseCommandLine(parseBeginning(words))).toThrow(message);
  });
});
