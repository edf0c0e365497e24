/** Network namespaces for tests, held open by a program, joined by a pair of links: what an engine gives its containers. */
import { execFileSync } from "node:child_process";
import type { Host } from "./host.ts";
import type { Program } from "./program.ts";

export interface Network {
  /** The namespace that a container is to have: eth0 is 10.93.7.2/24, its gateway 10.93.7.1. */
  readonly path: string;
  /** Runs a command of ip(8) in that namespace. */
  readonly ip: (args: string) => string;
  /** Likewise, of tc(8). */
  readonly tc: (args: string) => string;
  /** The holder of that namespace. */
  readonly holder: Program;
  /** The holder of the neighbour's namespace, whose eth0 is 10.93.7.1. */
  readonly neighbour: Program;
  /** Ends both. */
  readonly close: () => Promise<void>;
}

/** Makes two namespaces with a link between them. */
export async function makeNetwork(host: Host): Promise<Network> {
  const [mine, neighbour] = [await hold(host), await hold(host)];
  ip(mine, `link add eth0 type veth peer name eth0 netns ${neighbour.pid}`);
  for (const [holder, address] of [
    [mine, "10.93.7.2/24"],
    [neighbour, "10.93.7.1/24"],
  ] as const) {
    ip(holder, `address add ${address} dev eth0`);
    ip(holder, "link set eth0 up");
  }
  ip(mine, "route add default via 10.93.7.1");
  return {
    path: namespacePath(mine),
    ip: (args) => ip(mine, args),
    tc: (args) => inside(mine, "tc", args),
    holder: mine,
    neighbour,
    close: async () => {
      for (const holder of [mine, neighbour]) {
        holder.signal("SIGKILL");
        await holder.ended();
      }
    },
  };
}

/** Where a program's network namespace is. */
export function namespacePath(program: Program): string {
  return `/proc/${program.pid}/ns/net`;
}

async function hold(host: Host): Promise<Program> {
  const holder = host.start("unshare", ["--net", "sh", "-c", "echo open; exec sleep 10000"]);
  await holder.stdout?.until("open\n");
  return holder;
}

function ip(holder: Program, args: string): string {
  return inside(holder, "ip", args);
}

function inside(holder: Program, program: string, args: string): string {
  return execFileSync("nsenter", [`--net=${namespacePath(holder)}`, program, ...args.split(" ")], { encoding: "utf8" });
}
