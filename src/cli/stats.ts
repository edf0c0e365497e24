/** What a container uses, from the guest's cgroup v2 files to the JSON that `runc events` prints (runc's types/events.go). */
import { HuskError } from "../errors.ts";
import { map, object, type Reader, read, ShapeError, string } from "../narrow.ts";

type Files = Readonly<Record<string, string>>;

/** The part of StatsContainerResponse (proto/agent/v1/agent.proto) that is looked at. */
const statsAnswer: Reader<{ readonly files: Files }> = object<{ readonly files: Files }>({ files: map(string) });

/** What runc prints where there is no limit. */
const unlimited = 2n ** 64n - 1n;

/** The supervisor's answer, which is a guest's word. Throws `guest` where it cannot be read. */
export function readStats(answer: unknown): { readonly files: Files } {
  try {
    return read(statsAnswer, answer);
  } catch (cause) {
    if (!(cause instanceof ShapeError)) throw cause;
    throw new HuskError("guest", "the guest's statistics cannot be read", { cause });
  }
}

/** The `data` of a stats event. To be printed by `stringifyJson`: there are 64-bit numbers in it. */
export function runcStats(files: Files): object {
  const cpu = keyed(files["cpu.stat"]);
  const memory = keyed(files["memory.stat"]);
  const events = keyed(files["memory.events"]);
  const nanoseconds = (name: string): bigint => (cpu[name] ?? 0n) * 1000n;
  return {
    cpu: {
      usage: { total: nanoseconds("usage_usec"), kernel: nanoseconds("system_usec"), user: nanoseconds("user_usec") },
      throttling: nonZero({
        periods: cpu["nr_periods"],
        throttledPeriods: cpu["nr_throttled"],
        throttledTime: nanoseconds("throttled_usec"),
      }),
    },
    cpuset: {
      cpus: numbers(files["cpuset.cpus.effective"]),
      cpu_exclusive: 0,
      mems: numbers(files["cpuset.mems.effective"]),
      mem_hardwall: 0,
      mem_exclusive: 0,
      memory_migrate: 0,
      memory_spread_page: 0,
      memory_spread_slab: 0,
      memory_pressure: 0,
      sched_load_balance: 0,
      sched_relax_domain_level: 0,
    },
    memory: {
      ...nonZero({ cache: memory["file"] }),
      usage: { ...memoryUse(files, "memory"), failcnt: events["max"] ?? 0n },
      swap: { ...memoryUse(files, "memory.swap"), failcnt: 0n },
      kernel: { limit: 0n, usage: memory["kernel"] ?? 0n, failcnt: 0n },
      kernelTCP: { limit: 0n, usage: memory["sock"] ?? 0n, failcnt: 0n },
      raw: memory,
    },
    pids: nonZero({ current: number(files["pids.current"]), limit: number(files["pids.max"]) }),
    blkio: blockIo(files["io.stat"]),
    hugetlb: hugePages(files),
    intel_rdt: {},
    network_interfaces: null,
  };
}

function memoryUse(files: Files, prefix: string) {
  return {
    limit: files[`${prefix}.max`]?.trim() === "max" ? unlimited : (number(files[`${prefix}.max`]) ?? 0n),
    ...nonZero({ usage: number(files[`${prefix}.current`]), max: number(files[`${prefix}.peak`]) }),
  };
}

/** io.stat: "254:0 rbytes=1 wbytes=2 rios=3 wios=4 ...", a device a line. */
function blockIo(text = ""): object {
  const devices = text.split("\n").flatMap((line) => {
    const [, major, minor, rest = ""] = /^(\d+):(\d+) (.*)$/.exec(line) ?? [];
    return major === undefined ? [] : [{ major: Number(major), minor: Number(minor), values: keyed(rest.replaceAll(" ", "\n"), "=") }];
  });
  const entries = (pairs: readonly (readonly [op: string, key: string])[]) =>
    devices.flatMap(({ major, minor, values }) => pairs.map(([op, key]) => ({ major, minor, op, value: values[key] ?? 0n })));
  const bytes = entries([
    ["Read", "rbytes"],
    ["Write", "wbytes"],
  ]);
  const operations = entries([
    ["Read", "rios"],
    ["Write", "wios"],
  ]);
  return bytes.length === 0 ? {} : { ioServiceBytesRecursive: bytes, ioServicedRecursive: operations };
}

/** By page size, "2MB". */
function hugePages(files: Files): object {
  const sizes = Object.keys(files).flatMap((file) => /^hugetlb\.(\w+)\.current$/.exec(file)?.[1] ?? []);
  return Object.fromEntries(
    sizes.map((size) => [
      size,
      {
        ...nonZero({ usage: number(files[`hugetlb.${size}.current`]) }),
        failcnt: keyed(files[`hugetlb.${size}.events`])["max"] ?? 0n,
      },
    ]),
  );
}

/** Lines "key 123" as an object; others are left out. */
function keyed(text = "", separator = " "): Readonly<Record<string, bigint>> {
  const pairs = text.split("\n").map((line) => line.split(separator));
  return Object.fromEntries(
    pairs.flatMap(([key = "", value = ""]) => (/^\d{1,20}$/.test(value) && key !== "" ? [[key, BigInt(value)] as const] : [])),
  );
}

function number(text = ""): bigint | undefined {
  return /^\d{1,20}\n?$/.test(text) ? BigInt(text) : undefined;
}

/** A list such as "0-3,7" as numbers. */
function numbers(text = ""): number[] {
  return text
    .trim()
    .split(",")
    .filter((range) => /^\d{1,5}(-\d{1,5})?$/.test(range))
    .flatMap((range) => {
      const [first = 0, last = first] = range.split("-").map(Number);
      return Array.from({ length: Math.max(0, last - first + 1) }, (_, offset) => first + offset);
    });
}

/** runc leaves out what is zero. */
function nonZero(values: Readonly<Record<string, bigint | undefined>>): object {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined && value !== 0n));
}
