/** Calls on a container that runs: exec, state, list, kill, delete; beside runc's, and beside a start of Node that does nothing. */
import type { BenchHost, Way } from "../bench-host.ts";
import type { Figure, Part } from "../figure.ts";

export async function calls(host: BenchHost): Promise<Part> {
  const way: Way = { templates: true };
  const bundle = await host.bundle(["/bin/sleep", "1000000"]);
  const [inHusk, inRunc] = [(await host.detach(way, bundle)).id, (await host.detach("runc", bundle)).id];
  const call = (name: string, husk: readonly string[], runc: readonly string[], limit: Figure["goals"]): Figure => ({
    name,
    unit: "ms",
    better: "less",
    husk: async () => (await host.husk(way, husk)).endMs,
    beside: { runc: async () => (await host.runc(runc)).endMs, "node -e 0": () => host.bareNode() },
    goals: limit,
  });
  const inNode = [{ of: "node -e 0", bound: 1.5 }];
  return {
    figures: [
      call("exec of true", ["exec", inHusk, "/bin/true"], ["exec", inRunc, "/bin/true"], [{ of: "runc", bound: 2 }]),
      call("state", ["state", inHusk], ["state", inRunc], inNode),
      call("list", ["list"], ["list"], inNode),
      call("kill", ["kill", inHusk, "CONT"], ["kill", inRunc, "CONT"], inNode),
      {
        name: "delete --force of a running container",
        unit: "ms",
        better: "less",
        husk: () => removal(host, way, bundle),
        beside: { runc: () => removal(host, "runc", bundle), "node -e 0": () => host.bareNode() },
        goals: [],
      },
      {
        name: "delete of one that has ended",
        unit: "ms",
        better: "less",
        husk: () => endedRemoval(host, way, bundle),
        beside: { runc: () => endedRemoval(host, "runc", bundle), "node -e 0": () => host.bareNode() },
        goals: inNode,
      },
    ],
  };
}

async function removal(host: BenchHost, runtime: Way | "runc", bundle: string): Promise<number> {
  const { remove } = await host.detach(runtime, bundle);
  const began = performance.now();
  await remove();
  return performance.now() - began;
}

async function endedRemoval(host: BenchHost, runtime: Way | "runc", bundle: string): Promise<number> {
  const { id, remove } = await host.detach(runtime, bundle);
  const call = (args: readonly string[]) => (runtime === "runc" ? host.runc(args) : host.husk(runtime, args));
  await call(["kill", id, "KILL"]);
  while ((JSON.parse((await call(["state", id])).output) as { status: string }).status !== "stopped");
  const began = performance.now();
  await call(["delete", id]);
  const milliseconds = performance.now() - began;
  await remove(); // which knows no such container any more
  return milliseconds;
}
