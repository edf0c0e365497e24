/**
 * A container's figures from the guest's cgroup files, in containerd's message.
 * https://www.kernel.org/doc/html/latest/admin-guide/cgroup-v2.html
 */
import type { StatsContainerResponse } from "../gen/agent/v1/agent.ts";
import { Metrics } from "../gen/containerd/cgroups/v2/metrics.ts";

type Files = Readonly<Record<string, string>>;

/** What "max" is in the message. */
const unlimited = 2n ** 64n - 1n;

/** The message; nothing but zeros for a container that has no cgroup in the guest. */
export function metricsOf(stats: StatsContainerResponse | undefined): Metrics {
  const files: Files = stats?.files ?? {};
  const cpu = flat(files["cpu.stat"]);
  const memory = flat(files["memory.stat"]);
  const events = flat(files["memory.events"]);
  return Metrics.fromPartial({
    pids: { current: single(files["pids.current"]), limit: single(files["pids.max"]) },
    cpu: {
      usageUsec: cpu("usage_usec"),
      userUsec: cpu("user_usec"),
      systemUsec: cpu("system_usec"),
      nrPeriods: cpu("nr_periods"),
      nrThrottled: cpu("nr_throttled"),
      throttledUsec: cpu("throttled_usec"),
    },
    memory: {
      ...memoryStat(memory),
      usage: single(files["memory.current"]),
      usageLimit: limitOf(files["memory.max"], stats),
      swapUsage: single(files["memory.swap.current"]),
      swapLimit: single(files["memory.swap.max"]),
    },
    io: { usage: ioUsage(files["io.stat"]) },
    memoryEvents: {
      low: events("low"),
      high: events("high"),
      max: events("max"),
      oom: events("oom"),
      oomKill: events("oom_kill"),
    },
  });
}

/** The limit that acts: the container's, or what the guest has. Programs print usage in percent of it. */
function limitOf(text: string | undefined, stats: StatsContainerResponse | undefined): bigint {
  const limit = single(text);
  const guest = stats?.guestMemoryTotalBytes ?? 0n;
  return guest > 0n && (limit === 0n || limit > guest) ? guest : limit;
}

function memoryStat(value: (name: string) => bigint): Partial<NonNullable<Metrics["memory"]>> {
  return {
    anon: value("anon"),
    file: value("file"),
    kernelStack: value("kernel_stack"),
    slab: value("slab"),
    sock: value("sock"),
    shmem: value("shmem"),
    fileMapped: value("file_mapped"),
    fileDirty: value("file_dirty"),
    fileWriteback: value("file_writeback"),
    anonThp: value("anon_thp"),
    inactiveAnon: value("inactive_anon"),
    activeAnon: value("active_anon"),
    inactiveFile: value("inactive_file"),
    activeFile: value("active_file"),
    unevictable: value("unevictable"),
    slabReclaimable: value("slab_reclaimable"),
    slabUnreclaimable: value("slab_unreclaimable"),
    pgfault: value("pgfault"),
    pgmajfault: value("pgmajfault"),
  };
}

/** "8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...", a line a device. */
function ioUsage(text: string | undefined): NonNullable<Metrics["io"]>["usage"] {
  return (text ?? "").split("\n").flatMap((line) => {
    const [, major, minor, rest = ""] = /^(\d+):(\d+) (.*)$/.exec(line) ?? [];
    if (major === undefined || minor === undefined) return [];
    const pairs = new Map(rest.split(" ").map((pair): [string, string] => [pair.split("=")[0] ?? "", pair.split("=")[1] ?? ""]));
    const value = (name: string): bigint => single(pairs.get(name));
    const [rbytes, wbytes, rios, wios] = [value("rbytes"), value("wbytes"), value("rios"), value("wios")];
    return [{ major: BigInt(major), minor: BigInt(minor), rbytes, wbytes, rios, wios }];
  });
}

/** A file of "name value" lines. */
function flat(text: string | undefined): (name: string) => bigint {
  const values = new Map((text ?? "").split("\n").map((line): [string, string] => [line.split(" ")[0] ?? "", line.split(" ")[1] ?? ""]));
  return (name) => single(values.get(name));
}

/** A file, or a value, that is one number, or "max". What the guest sends that is neither counts as 0. */
function single(text: string | undefined): bigint {
  const word = (text ?? "").trim();
  if (word === "max") return unlimited;
  return /^\d{1,19}$/.test(word) ? BigInt(word) : 0n;
}
