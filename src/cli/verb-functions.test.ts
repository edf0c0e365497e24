/** The small functions of the verbs: signals, tables, logs, versions, configuration, features. */
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { installationFolder } from "../host/installation.ts";
import { printable } from "../host/printable.ts";
import { featureReport } from "../oci/features.ts";
import { formatLine, type Level, type Log, openLog, openSessionLog } from "./log.ts";
import { GrowingFile } from "./logs.ts";
import { table } from "./output.ts";
import { PidFile } from "./pid-file.ts";
import { type GuestProcessInfo, processTable } from "./ps.ts";
import { configText } from "./show-config.ts";
import { parseSignal } from "./signals.ts";
import { version, versionText } from "./version-text.ts";

describe("signals", () => {
  it.each([
    ["9", 9],
    ["0", 0],
    ["64", 64],
    ["TERM", 15],
    ["SIGTERM", 15],
    ["sigkill", 9],
    ["usr1", 10],
    ["RTMIN", 34],
    ["SIGRTMIN+3", 37],
    ["RTMAX-1", 63],
  ])("%s is %d", (text, number) => {
    expect(parseSignal(text)).toBe(number);
  });

  it.each([
    ["65", `unknown signal "65": the last one is 64`],
    ["-9", `unknown signal "-9"`],
    ["TERN", `unknown signal "TERN"; did you mean TERM?`],
    ["RTMIN+40", `unknown signal "RTMIN+40"`],
    ["RTMIN-1", `unknown signal "RTMIN-1"`],
    ["", `unknown signal ""`],
    ["constructor", `unknown signal "constructor"`],
  ])("%s is none", (text, message) => {
    expect(() => parseSignal(text)).toThrow(expect.objectContaining({ message }));
  });
});

describe("tables", () => {
  it("are runc's", () => {
    const rows = [
      ["ID", "PID", "OWNER"],
      ["a-rather-long-id", "1", "root"],
    ];
    expect(table(rows)).toBe("ID                 PID         OWNER\na-rather-long-id   1           root\n");
    expect(table([["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]])).toBe(
      "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n",
    );
  });

  it("of processes are those of ps -ef", () => {
    const now = new Date(2026, 4, 7, 12, 30).getTime();
    const process: GuestProcessInfo = {
      pid: 101,
      parentPid: 1,
      uid: 1000,
      state: "S",
      startUnixMs: now - 100_000,
      cpuMs: 25_000,
      residentBytes: 4096,
      terminal: "pts/0",
      command: "sh -c x\x1b]0;title\x07\nrm",
      processId: "",
      containerPid: 1,
    };
    const long = {
      ...process,
      pid: 7,
      uid: 0,
      startUnixMs: now - 3 * 24 * 3_600_000,
      cpuMs: 3_725_000,
      terminal: "?",
      command: "[kthreadd]",
    };
    expect(processTable([process, long], now, new Map([[0, "root"]]))).toBe(
      [
        "UID   PID  PPID  C   STIME  TTY    TIME      CMD\n",
        "1000  101  1     25  12:28  pts/0  00:00:25  sh -c x rm\n",
        "root  7    1     1   May04  ?      01:02:05  [kthreadd]\n",
      ].join(""),
    );
  });
});

describe("a guest's text", () => {
  it("cannot command the terminal", () => {
    expect(printable("a\tb\n\x1bc\x1b(B\x1b[2Jc\x1b]0;x\x07d\x1b]8;;u\x1b\\e\x9bf\r\b\0")).toBe("a\tb\ncdef");
  });
});

describe("the log", () => {
  const at = new Date("2026-01-02T03:04:05.678Z");

  it("has logrus' lines", () => {
    expect(formatLine("json", "error", `no "x"`, at)).toBe(`{"level":"error","msg":"no \\"x\\"","time":"2026-01-02T03:04:05Z"}\n`);
    expect(formatLine("text", "warning", `no "x"`, at)).toBe(`time="2026-01-02T03:04:05Z" level=warning msg="no \\"x\\""\n`);
  });

  function said(debug: boolean, level: Level, toStderr = true): [stderr: string, file: string] {
    const out: [string, string] = ["", ""];
    const sinks = {
      stderr: (text: string) => void (out[0] += text),
      append: (file: string, text: string) => void (out[1] += text === "" ? "" : `${file}: ${text}`),
      now: () => at,
    };
    openLog({ log: "/l", logFormat: "json", debug }, toStderr, sinks)[level]("m");
    return out;
  }

  it("tells people of errors and warnings, and of the rest where they ask", () => {
    expect(said(false, "error")[0]).toBe("husk: m\n");
    expect(said(false, "warning")[0]).toBe("husk: warning: m\n");
    expect(said(false, "info")[0]).toBe("");
    expect(said(true, "info")[0]).toBe("husk: info: m\n");
    expect(said(false, "debug")).toEqual(["", ""]);
    expect(said(true, "debug")[0]).toBe("husk: debug: m\n");
  });

  it("keeps what is informative in the file, and leaves standard error to front in a session", () => {
    expect(said(false, "info")[1]).toBe(`/l: {"level":"info","msg":"m","time":"2026-01-02T03:04:05Z"}\n`);
    expect(said(false, "error", false)).toEqual(["", `/l: {"level":"error","msg":"m","time":"2026-01-02T03:04:05Z"}\n`]);
  });

  it("of a session prints on the caller's standard error what --debug asks for, but for errors, unless there is a file", () => {
    const printed: string[] = [];
    const session = { print: (text: string) => void printed.push(text) };
    const file = join(mkdtempSync(join(tmpdir(), "husk-log-")), "l");
    const levels: readonly Level[] = ["debug", "info", "warning", "error"];
    for (const level of levels) openSessionLog({ log: undefined, logFormat: "text", debug: true }, session)[level](level);
    expect(printed.splice(0)).toEqual(["husk: debug: debug\n", "husk: info: info\n", "husk: warning: warning\n"]);
    for (const level of levels) openSessionLog({ log: undefined, logFormat: "text", debug: false }, session)[level](level);
    for (const level of levels) openSessionLog({ log: file, logFormat: "text", debug: true }, session)[level](level);
    expect(printed).toEqual([]);
    expect(readFileSync(file, "utf8").match(/level=\w+/g)).toEqual(levels.map((level) => `level=${level}`));
  });

  it("that cannot be written is an error, before anything is in it", () => {
    const open = (): Log => openLog({ log: "/no/such/folder/l", logFormat: "text", debug: false }, false);
    expect(open).toThrow("cannot write the log /no/such/folder/l");
  });
});

describe("the version", () => {
  it("is the package's, in the form that engines read", () => {
    const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };
    expect(version).toBe(manifest.version);
    expect(versionText()).toMatch(new RegExp(`^husk version ${version}\nspec: \\d+\\.\\d+\\.\\d+\n`));
    // Docker takes the last line that holds the word.
    expect(versionText().match(/version/g)).toHaveLength(1);
  });
});

describe("husk config", () => {
  it("prints TOML, with each value's source", () => {
    const row = (key: string, value: string, source: string) => ({ key, value, source, default: "", kind: "", doc: "" });
    const rows = [
      row("vm.accel", `"tcg"`, "/etc/husk/config.toml"),
      row("vm.vcpus", "1", "default"),
      row("log.level", `"info"`, "default"),
    ];
    expect(configText(rows)).toBe(
      `[vm]\naccel = "tcg"   # /etc/husk/config.toml\nvcpus = 1       # default\n\n[log]\nlevel = "info"  # default\n`,
    );
  });
});

describe("features", () => {
  it("names what is supported, each once", () => {
    const report = featureReport() as { mountOptions: string[]; linux: { capabilities: string[] } };
    expect(report.mountOptions).toEqual([...new Set(report.mountOptions)].toSorted());
    expect(report.mountOptions).toEqual(expect.arrayContaining(["ro", "rro", "rbind", "nosymfollow", "rslave"]));
    expect(report.mountOptions).not.toContain("idmap");
    expect(new Set(report.linux.capabilities).size).toBe(41);
  });
});

describe("installationFolder", () => {
  it("is found from the bundle and from the sources", () => {
    expect(installationFolder("/opt/husk/dist/husk.js")).toBe("/opt/husk");
    expect(installationFolder("/srv/husk/src/cli/main.ts")).toBe("/srv/husk");
  });
});

describe("files", () => {
  it("that grow are read on, also from their beginning where they are made anew", () => {
    const folder = mkdtempSync(join(tmpdir(), "husk-logs-"));
    const path = join(folder, "log");
    let text = "";
    const file = new GrowingFile(path, (more) => void (text += more));
    file.readOn();
    writeFileSync(path, "one\n");
    file.readOn();
    appendFileSync(path, "zwei: \xc3\xbc\n", "latin1");
    file.readOn();
    writeFileSync(path, "new\n");
    file.readOn();
    file.close();
    expect(text).toBe("one\nzwei: ü\nnew\n");
    rmSync(folder, { recursive: true });
  });

  it("of PIDs appear whole, or not at all", () => {
    const folder = mkdtempSync(join(tmpdir(), "husk-pid-"));
    const path = join(folder, "pid");
    {
      using file = new PidFile(path);
      file.write(4711);
    }
    expect(readFileSync(path, "utf8")).toBe("4711");
    rmSync(path);
    {
      using _never = new PidFile(path);
    }
    expect(() => readFileSync(path)).toThrow("ENOENT");
    expect(() => new PidFile(join(folder, "none", "pid"))).toThrow(`cannot write the PID file ${folder}/none/pid`);
    rmSync(folder, { recursive: true });
  });
});
