/** config.json's process: how it is scheduled, where it runs, its limits and its terminal. */
import { chmodSync, copyFileSync } from "node:fs";
import { expect } from "vitest";
import { test } from "../harness/host.ts";
import { isHusk } from "../harness/runtime.ts";
import { Terminal } from "../harness/terminal.ts";

const namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map((type) => ({ type }));

test.runIf(isHusk)("process: scheduler, priority of input and output, personality, and the processors of an exec", async ({ host }) => {
  // Fields 18, 19, 40 and 41 of stat(5): priority, nice, real-time priority and policy, counted behind the name in parentheses.
  const script = `sed "s/.*) //" /proc/self/stat | cut -d" " -f16,17,38,39; ionice; uname -m; echo ready; read line`;
  const bundle = host.script(script, {
    process: {
      scheduler: { policy: "SCHED_BATCH", nice: 5 },
      ioPriority: { class: "IOPRIO_CLASS_IDLE", priority: 0 },
      execCPUAffinity: { initial: "0", final: "1" },
    },
    linux: { personality: { domain: "LINUX32" } },
  });
  const { id, foreground } = await host.running(bundle, { stdin: "pipe" });
  expect(foreground.stdout?.text()).toBe("25 5 0 3\nidle\ni686\nready\n");
  const allowed = "sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status";
  expect(await host.ok("exec", id, "sh", "-c", allowed)).toBe("1\n");
  expect(await host.ok("exec", id, "sh", "-c", "sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/1/status")).toBe("0-1\n");
  foreground.stdin.end("\n");
  await foreground.ended();
});

test("process: a capability lets a user execute what the file's mode would not", async ({ host }) => {
  const held = ["CAP_DAC_OVERRIDE"];
  const capabilities = { bounding: held, effective: held, inheritable: held, permitted: held, ambient: held };
  const bundle = host.bundle({ process: { args: ["/bin/busybox-of-root", "echo", "hello"], user: { uid: 1000, gid: 100 }, capabilities } });
  copyFileSync("/bin/busybox", `${bundle.rootfs}/bin/busybox-of-root`);
  chmodSync(`${bundle.rootfs}/bin/busybox-of-root`, 0o744);
  expect(await host.run(bundle)).toEqual({ status: 0, stdout: "hello\n", stderr: "" });
});

test.runIf(isHusk)("process: a real-time scheduler, where the container may have one", async ({ host }) => {
  const script = `sed "s/.*) //" /proc/self/stat | cut -d" " -f38,39`;
  const { stdout } = await host.run(host.script(script, { process: { scheduler: { policy: "SCHED_FIFO", priority: 10, flags: [] } } }));
  expect(stdout).toBe("10 1\n");
});

test("process: every limit by its name", async ({ host }) => {
  const limits: Record<string, [number, number]> = {
    AS: [2 ** 33, 2 ** 34],
    CORE: [0, 4096],
    CPU: [100, 200],
    DATA: [2 ** 33, 2 ** 34],
    FSIZE: [2 ** 30, 2 ** 31],
    LOCKS: [10, 20],
    MEMLOCK: [32_768, 65_536],
    MSGQUEUE: [1000, 2000],
    NICE: [0, 0],
    NOFILE: [100, 200],
    NPROC: [300, 400],
    RSS: [2 ** 30, 2 ** 31],
    RTPRIO: [0, 0],
    RTTIME: [1000, 2000],
    SIGPENDING: [50, 60],
    STACK: [2 ** 20, 2 ** 21],
  };
  const rlimits = Object.entries(limits).map(([name, [soft, hard]]) => ({ type: `RLIMIT_${name}`, soft, hard }));
  const { stdout } = await host.run(host.bundle({ process: { args: ["cat", "/proc/self/limits"], rlimits } }));
  const names: Record<string, string> = {
    AS: "address space",
    CORE: "core file size",
    CPU: "cpu time",
    DATA: "data size",
    FSIZE: "file size",
    LOCKS: "file locks",
    MEMLOCK: "locked memory",
    MSGQUEUE: "msgqueue size",
    NICE: "nice priority",
    NOFILE: "open files",
    NPROC: "processes",
    RSS: "resident set",
    RTPRIO: "realtime priority",
    RTTIME: "realtime timeout",
    SIGPENDING: "pending signals",
    STACK: "stack size",
  };
  const seen = Object.fromEntries(
    Object.entries(names).map(([name, words]) => {
      const [, soft, hard] = new RegExp(`^Max ${words} +(\\d+) +(\\d+)`, "m").exec(stdout) ?? [];
      return [name, [Number(soft), Number(hard)]];
    }),
  );
  expect(seen).toEqual(limits);
});

test("process: a terminal of the size that config.json says", async ({ host }) => {
  const bundle = host.script("stty size; tty", { process: { terminal: true, consoleSize: { height: 31, width: 97 } } });
  const terminal = Terminal.run(host, ["run", "--bundle", bundle.path, "box"]);
  await terminal.screen.until("31 97\r\n/dev/pts/0");
  expect((await terminal.process.ended()).status).toBe(0);
});

test("namespaces: user with mappings, cgroup, and the clocks of a time namespace", async ({ host }) => {
  const script = `cat /proc/self/uid_map /proc/self/gid_map | tr -s " "; cat /proc/self/cgroup | tail -1; id -u; touch /tmp/mine && stat -c %u /tmp/mine
    mount -t tmpfs none /home 2>/dev/null; echo mount=$?`;
  const bundle = host.script(script, {
    linux: {
      namespaces: [...namespaces, { type: "user" }],
      uidMappings: [{ containerID: 0, hostID: 0, size: 2000 }],
      gidMappings: [{ containerID: 0, hostID: 0, size: 3000 }],
    },
  });
  const { stdout, stderr } = await host.run(bundle);
  expect(stderr).toBe("");
  expect(stdout).toBe(" 0 0 2000\n 0 0 3000\n0::/\n0\n0\nmount=1\n");
});

test.runIf(isHusk)("namespaces: time, whose clocks have their offsets", async ({ host }) => {
  const bundle = host.script("cut -d. -f1 /proc/uptime", {
    linux: {
      namespaces: [...namespaces, { type: "time" }],
      timeOffsets: { boottime: { secs: 1_000_000, nanosecs: 0 }, monotonic: { secs: 500, nanosecs: 5 } },
    },
  });
  const { stdout } = await host.run(bundle);
  expect(Number(stdout)).toBeGreaterThanOrEqual(1_000_000);
  expect(Number(stdout)).toBeLessThan(1_001_000);
});

test.runIf(isHusk)("names: the domain's", async ({ host }) => {
  const { stdout } = await host.run(host.script("hostname; cat /proc/sys/kernel/domainname", { hostname: "a", domainname: "example.org" }));
  expect(stdout).toBe("a\nexample.org\n");
});
