import { afterEach, describe, expect, it, vi } from "vitest";
import { type Script, ScriptedBus } from "../dbus/scripted-bus.ts";
import { explain } from "../errors.ts";
import { limitProperties, limitScope, startScope, stopScope } from "./scope.ts";

const manager = "org.freedesktop.systemd1.Manager";
const scope = { unit: "husk-box.scope", slice: "machine.slice" };
const own = { unit: "husk-box.scope", description: "husk sandbox husk-box 01" };
const nothing = { signature: "", body: [] };

/** The unit's description, asked as systemd's clients do; anything else is `others`. */
function described(description: string, others: Script): Script {
  return (call, bus) => {
    if (call.member === "GetUnit") return { signature: "o", body: ["/unit/husk_2dbox"] };
    if (call.member === "Get") return { signature: "v", body: [{ signature: "s", value: description }] };
    return others(call, bus);
  };
}

/** A systemd whose jobs all end with `result`; the first begins only once another one has ended. */
function jobs(result: string): Script {
  return ({ member }, bus) => {
    if (member !== "StartTransientUnit" && member !== "StopUnit") return nothing;
    bus.signal(manager, "JobRemoved", "uoss", [6, "/job/6", "other.service", "failed"]);
    bus.signal("org.example.Another", "JobRemoved", "uoss", [7, "/job/7", scope.unit, "failed"]);
    bus.signal(manager, "JobRemoved", "uoss", [7, "/job/7", scope.unit, result]);
    return { signature: "o", body: ["/job/7"] };
  };
}

async function systemd(script: Script): Promise<ScriptedBus> {
  const bus = await ScriptedBus.open(script);
  vi.stubEnv("DBUS_SYSTEM_BUS_ADDRESS", `unix:path=${bus.path}`);
  return bus;
}

afterEach(() => {
  vi.unstubAllEnvs();
});

describe("startScope", () => {
  it("asks for the scope with its process, slice and limits, and waits until systemd has made it", async () => {
    await using bus = await systemd(jobs("done"));
    let noted = 0;
    await startScope({ ...scope, ...own }, 4711, { memoryBytes: 2 ** 28, cpuShares: 512, cpus: "0-1", mems: "0" }, 2, () => {
      expect(bus.calls).toEqual([]);
      noted++;
    });
    expect(noted).toBe(1);
    expect(bus.calls.map(({ member }) => member)).toEqual(["Subscribe", "StartTransientUnit"]);
    const [name, mode, properties, auxiliary] = bus.calls[1]?.body ?? [];
    expect([name, mode, auxiliary]).toEqual(["husk-box.scope", "fail", []]);
    expect(Object.fromEntries(properties as [string, { value: unknown }][])).toMatchObject({
      Description: { value: "husk sandbox husk-box 01" },
      Slice: { value: "machine.slice" },
      PIDs: { signature: "au", value: [4711] },
      Delegate: { value: true },
      DefaultDependencies: { value: false },
      CollectMode: { value: "inactive-or-failed" },
      IOAccounting: { value: true },
      MemoryMax: { value: 2n ** 28n },
      CPUWeight: { value: 20n },
      AllowedCPUs: { value: [0b11] },
      AllowedMemoryNodes: { value: [0b1] },
    });
  });

  it("says how systemd's job ended where it failed", async () => {
    await using _bus = await systemd(jobs("failed"));
    const failure = await startScope({ ...scope, ...own }, 1, {}, 2, () => {}).catch((error: unknown) => error);
    expect(explain(failure)).toBe('cannot make the scope husk-box.scope: systemd\'s job ended as "failed"');
    expect(failure).toMatchObject({ code: "host" });
  });

  it("forgets a unit that failed before, and starts anew; one that is there is not taken", async () => {
    const tries: string[] = [];
    const taken = { error: "org.freedesktop.systemd1.UnitExists", text: "Unit husk-box.scope was already loaded." };
    await using _bus = await systemd((call, bus) => {
      tries.push(call.member ?? "");
      return call.member === "StartTransientUnit" && !tries.includes("ResetFailedUnit") ? taken : jobs("done")(call, bus);
    });
    await startScope({ ...scope, ...own }, 1, {}, 2, () => {});
    expect(tries).toEqual(["Subscribe", "StartTransientUnit", "ResetFailedUnit", "Subscribe", "StartTransientUnit"]);

    await using _other = await systemd(({ member }) => (member === "StartTransientUnit" ? taken : nothing));
    const failure = await startScope({ ...scope, ...own }, 1, {}, 2, () => {}).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "already-exists" });
    expect(explain(failure)).toBe("cannot make the scope husk-box.scope: Unit husk-box.scope was already loaded.");
  });

  it("says what to do on a host without systemd, and has nothing to be given back there", async () => {
    vi.stubEnv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
    const note = vi.fn<() => void>();
    const failure = await startScope({ ...scope, ...own }, 1, {}, 2, note).catch((error: unknown) => error);
    expect(note).not.toHaveBeenCalled();
    expect(explain(failure)).toBe(
      "cannot make the scope husk-box.scope: connect ENOENT /nonexistent/bus (without systemd, leave --systemd-cgroup out)",
    );
  });
});

describe("stopScope", () => {
  it("kills what is left, stops the unit and waits for it", async () => {
    await using bus = await systemd(described(own.description, jobs("done")));
    await stopScope(own);
    expect(bus.calls.map(({ path, member, body }) => [path, member, ...body])).toEqual([
      ["/org/freedesktop/systemd1", "GetUnit", "husk-box.scope"],
      ["/unit/husk_2dbox", "Get", "org.freedesktop.systemd1.Unit", "Description"],
      ["/org/freedesktop/systemd1", "KillUnit", "husk-box.scope", "all", 9],
      ["/org/freedesktop/systemd1", "Subscribe"],
      ["/org/freedesktop/systemd1", "StopUnit", "husk-box.scope", "replace"],
    ]);
  });

  it("leaves a unit that is somebody else's", async () => {
    await using bus = await systemd(described("Another unit of that name", jobs("done")));
    await stopScope(own);
    expect(bus.calls.map(({ member }) => member)).toEqual(["GetUnit", "Get"]);
  });

  it("takes a scope that is gone for stopped, and nothing else", async () => {
    await using _gone = await systemd(() => ({ error: "org.freedesktop.systemd1.NoSuchUnit", text: "Unit husk-box.scope not loaded." }));
    await stopScope(own);
    await using _busy = await systemd(() => ({ error: "org.freedesktop.DBus.Error.AccessDenied", text: "Permission denied" }));
    await expect(stopScope(own)).rejects.toThrow("cannot stop the scope husk-box.scope");
  });
});

describe("limitScope", () => {
  it("changes the limits that are given, for as long as the host runs", async () => {
    await using bus = await systemd(() => nothing);
    await limitScope("husk-box.scope", { cpuShares: 2 }, 2);
    await limitScope("husk-box.scope", {}, 2);
    expect(bus.calls.map(({ member, body }) => [member, ...body])).toEqual([
      ["SetUnitProperties", "husk-box.scope", true, [["CPUWeight", { signature: "t", value: 1n }]]],
    ]);
  });

  it("has cgroup v1's properties where that is what systemd manages", () => {
    const limits = { memoryBytes: 4096, cpuShares: 1024, cpus: "0", mems: "0" };
    expect(limitProperties(limits, 1)).toEqual([
      ["MemoryLimit", { signature: "t", value: 4096n }],
      ["CPUShares", { signature: "t", value: 1024n }],
    ]);
  });

  it("writes lists of processors as bits", () => {
    const [property] = limitProperties({ cpus: "0,2-4,9" }, 2);
    expect(property).toEqual(["AllowedCPUs", { signature: "ay", value: [0b11101, 0b10] }]);
  });
});
