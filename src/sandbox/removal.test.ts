import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { HuskError } from "../errors.ts";
import { noteInLedger } from "../host/ledger.ts";
import { identify, isAlive, type ProcessIdentity } from "../host/process-identity.ts";
import { serveControl } from "./control.ts";
import { type ContainerRecord, claimContainer, readRecord, writeRecord } from "./record.ts";
import { deleteContainer } from "./removal.ts";
import { type RunFolder, removeRunFolder, runFolder } from "./run-folder.ts";

let work: string;
let root: string;
let warnings: string[];
let children: ChildProcess[];
const options = {
  detachTap: () => Promise.reject(new Error("no tap was expected")),
  unmount: () => Promise.reject(new Error("no mount was expected")),
  warn: (message: string) => void warnings.push(message),
};

beforeEach(() => {
  work = mkdtempSync(join(tmpdir(), "husk-removal-"));
  root = join(work, "root");
  warnings = [];
  children = [];
});
afterEach(() => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(work, { recursive: true });
});

/** A process that stands for a supervisor, as far as its life goes. */
function startSupervisor(): ProcessIdentity {
  const child = spawn("sleep", ["1000"]);
  children.push(child);
  const identity = identify(child.pid ?? 0);
  if (identity === undefined) throw new Error("the child must be found");
  return identity;
}

function claim(change: Partial<ContainerRecord> = {}): RunFolder {
  return claimContainer(root, {
    version: 1,
    ociVersion: "1.2.1",
    id: "box",
    status: "stopped",
    pid: 0,
    pidStart: 0,
    supervisor: null,
    bundle: work,
    rootfs: join(work, "rootfs"),
    created: "2026-01-01T00:00:00Z",
    owner: "root",
    annotations: { a: "b" },
    terminal: false,
    foreground: false,
    poststop: [],
    ...change,
  });
}

const hook = (script: string) => ({ path: "/bin/sh", args: ["sh", "-c", script] });

describe("a stopped container", () => {
  it("gives back its ledger, then runs its poststop hooks, then is gone", async () => {
    const taken = join(work, "taken");
    mkdirSync(taken);
    const folder = claim({ poststop: [hook(`ls ${taken} 2>&1 | tail -c 26 > after; cat > state`)] });
    noteInLedger(folder.ledger, { kind: "folder", path: taken });
    await deleteContainer(root, "box", false, options);
    expect(existsSync(folder.path)).toBe(false);
    expect(readFileSync(join(work, "after"), "utf8")).toBe("No such file or directory\n");
    expect(JSON.parse(readFileSync(join(work, "state"), "utf8"))).toEqual({
      ociVersion: "1.2.1",
      id: "box",
      status: "stopped",
      pid: 0,
      bundle: work,
      annotations: { a: "b" },
    });
    expect(warnings).toEqual([]);
  });

  it("is gone even where a hook fails, and the other hooks run", async () => {
    claim({ poststop: [hook("exit 3"), hook("touch second")] });
    await deleteContainer(root, "box", false, options);
    expect(warnings).toEqual(["error running poststop hook #0: /bin/sh ended with status 3"]);
    expect(existsSync(join(work, "second"))).toBe(true);
    expect(existsSync(root) && existsSync(join(root, "box"))).toBe(false);
  });

  it("stays, with its ledger, where something cannot be given back", async () => {
    const folder = claim({ poststop: [hook("touch ran")] });
    noteInLedger(folder.ledger, { kind: "tap", netns: "/run/netns/x", link: "eth0", tap: "husk0" });
    await expect(deleteContainer(root, "box", false, options)).rejects.toThrow("cannot give back the tap husk0 of eth0 in /run/netns/x");
    expect(existsSync(folder.ledger)).toBe(true);
    expect(existsSync(join(work, "ran"))).toBe(false);
  });
});

describe("a container that lives", () => {
  it.each(["running", "paused", "creating"] as const)("is left alone without force while it is %s", async (status) => {
    const supervisor = startSupervisor();
    const folder = claim({ status, supervisor });
    const deletion = deleteContainer(root, "box", false, options);
    await expect(deletion).rejects.toThrow(`cannot delete container box that is not stopped: ${status}`);
    await expect(deletion).rejects.toMatchObject({ code: "wrong-state" });
    expect(isAlive(supervisor)).toBe(true);
    expect(existsSync(folder.path)).toBe(true);
  });

  it("is killed through its supervisor, which may end, and clean up, in its own way", async () => {
    const supervisor = startSupervisor();
    const folder = claim({ status: "running", supervisor, poststop: [hook("touch ran")] });
    const asked: unknown[] = [];
    await using _server = await serveControl(folder.socket, {
      attach: (_, socket) => socket.destroy(),
      call: (method, params) => {
        asked.push([method, params]);
        setTimeout(() => {
          removeRunFolder(folder);
          process.kill(supervisor.pid, "SIGTERM");
        }, 20);
      },
    });
    await deleteContainer(root, "box", true, options);
    expect(asked).toEqual([["kill", { signal: 9, all: false }]]);
    expect(isAlive(supervisor)).toBe(false);
    expect(existsSync(join(work, "ran"))).toBe(false); // the supervisor's business
  });

  it.each(["running", "created"] as const)("is killed together with a supervisor that does not obey, while %s", async (status) => {
    const supervisor = startSupervisor();
    const folder = claim({ status, supervisor, poststop: [hook("touch ran")] });
    await using _server = await serveControl(folder.socket, {
      attach: (_, socket) => socket.destroy(),
      call: () => {
        throw new HuskError("guest", "the guest does not answer");
      },
    });
    await deleteContainer(root, "box", status === "running", options); // one that never ran needs no force
    expect(isAlive(supervisor)).toBe(false);
    expect(existsSync(folder.path)).toBe(false);
    expect(existsSync(join(work, "ran"))).toBe(true);
  });

  it("is killed together with a supervisor that is stopped by a signal", async () => {
    const supervisor = startSupervisor();
    process.kill(supervisor.pid, "SIGSTOP");
    claim({ status: "running", supervisor });
    const child = children[0];
    const exit = child === undefined ? undefined : once(child, "exit");
    await deleteContainer(root, "box", true, options);
    expect(await exit).toEqual([null, "SIGKILL"]);
  });

  it("does not kill a process that has its supervisor's PID by now", async () => {
    const other = startSupervisor();
    const folder = claim({ status: "running", supervisor: { pid: other.pid, start: other.start - 1 } });
    await deleteContainer(root, "box", false, options); // its supervisor is dead, so it has stopped
    expect(isAlive(other)).toBe(true);
    expect(existsSync(folder.path)).toBe(false);
  });
});

describe("a container that shares its sandbox", () => {
  /** The container "other", and "box" beside it, with what each would give back. */
  function claimTwo(change: Partial<ContainerRecord>) {
    const [other, folder] = [claim({ ...change, id: "other" }), claim(change)];
    for (const name of ["own", "shared"]) mkdirSync(join(work, name));
    noteInLedger(other.ledger, { kind: "folder", path: join(work, "shared") });
    linkSync(other.ledger, folder.ledger);
    noteInLedger(folder.ownLedger, { kind: "folder", path: join(work, "own") });
    return { other, folder };
  }

  it("is let go by a supervisor that goes on, and takes with it what was its own alone", async () => {
    const supervisor = startSupervisor();
    const { folder } = claimTwo({ status: "running", supervisor });
    const asked: unknown[] = [];
    await using _server = await serveControl(folder.socket, {
      attach: (_, socket) => socket.destroy(),
      call: (method) => {
        asked.push(method);
        setTimeout(() => {
          rmSync(folder.ledger);
          writeRecord(folder, { ...readRecord(root, "box"), status: "stopped", pid: 0, pidStart: 0, supervisor: null });
        }, 20);
      },
    });
    await deleteContainer(root, "box", true, options);
    expect(asked).toEqual(["delete"]);
    expect(isAlive(supervisor)).toBe(true);
    expect(["own", "shared"].map((name) => existsSync(join(work, name)))).toEqual([false, true]);
    expect(existsSync(folder.path)).toBe(false);
  });

  it("gives back what the sandbox took where its supervisor is dead, whichever is deleted first", async () => {
    claimTwo({ status: "running", supervisor: { pid: 1, start: 1 } });
    await deleteContainer(root, "box", false, options);
    expect(["own", "shared"].map((name) => existsSync(join(work, name)))).toEqual([false, false]);
    await deleteContainer(root, "other", false, options);
  });

  it("leaves the sandbox's alone where its record is damaged: others may be there", async () => {
    const { folder } = claimTwo({ status: "running", supervisor: startSupervisor() });
    writeFileSync(folder.state, "{");
    await deleteContainer(root, "box", true, options);
    expect(["own", "shared"].map((name) => existsSync(join(work, name)))).toEqual([false, true]);
  });
});

describe("what is not as it should be", () => {
  it("an unknown container is no error with force", async () => {
    await expect(deleteContainer(root, "box", false, options)).rejects.toThrow(`container "box" does not exist`);
    await deleteContainer(root, "box", true, options);
    await expect(deleteContainer(root, "../box", true, options)).rejects.toThrow("invalid container ID format");
  });

  it("a damaged record or ledger needs force, and then does not keep the container", async () => {
    const folder = claim();
    writeFileSync(folder.state, "{");
    writeFileSync(folder.ledger, "{\n");
    await expect(deleteContainer(root, "box", false, options)).rejects.toThrow("cannot be read");
    await deleteContainer(root, "box", true, options);
    expect(existsSync(runFolder(root, "box").path)).toBe(false);
    expect(warnings).toEqual([`the ledger ${folder.ledger} is damaged at line 1`]);
  });
});
