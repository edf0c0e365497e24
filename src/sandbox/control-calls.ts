/** What a container's control socket answers: each method's parameters are read and checked here, and nowhere else. */
import { HuskError } from "../errors.ts";
import type { Resources } from "../oci/types.ts";
import { parseResources } from "../oci/validate.ts";
import type { CheckpointOptions } from "./checkpoint.ts";
import type { Container } from "./container.ts";
import type { AttachHello, ControlHandlers, ControlMethod, Params } from "./control.ts";
import type { WindowSize } from "./stand-in.ts";

/** What the supervisor itself answers. */
export interface SupervisorCalls {
  readonly start: () => Promise<void>;
  readonly state: () => object;
  readonly update: (resources: Resources) => Promise<void>;
  readonly kill: (signal: number, all: boolean) => Promise<void>;
  readonly discard: () => Promise<void>;
  readonly checkpoint: (options: CheckpointOptions) => Promise<readonly string[]>;
}

/** The handlers of the control socket for `container`. */
export function serveContainer(container: Container, supervisor: SupervisorCalls): ControlHandlers {
  return {
    call: (method, params, { signal }) => answer(container, supervisor, method, params, signal),
    attach: ({ token, stream, pid }: AttachHello, socket) => {
      const standIn = container.findStandIn(token);
      if (standIn === undefined) socket.destroy();
      else standIn.attach(stream, socket, pid);
    },
  };
}

async function answer(
  container: Container,
  supervisor: SupervisorCalls,
  method: ControlMethod,
  params: Params,
  signal: AbortSignal,
): Promise<object> {
  switch (method) {
    case "start":
      await supervisor.start();
      return {};
    case "state":
      return supervisor.state();
    case "kill":
      await supervisor.kill(readInteger(params, "signal", 1, 64), params["all"] === true);
      return {};
    case "pause":
      await container.pause();
      return {};
    case "resume":
      await container.resume();
      return {};
    case "ps":
      return plain(await container.processes());
    case "stats":
      return plain(await container.stats());
    case "memoryKills":
      return { count: await container.moreMemoryKills(readInteger(params, "after", 0, Number.MAX_SAFE_INTEGER), signal) };
    case "update":
      await supervisor.update(parseResources(readText(params, "resources"), "update").value);
      return {};
    case "checkpoint":
      return { notes: await supervisor.checkpoint({ folder: readText(params, "folder"), leaveRunning: params["leaveRunning"] === true }) };
    case "resize":
      await container.init.resize(readSize(params["size"]) ?? missing("size"));
      return {};
    case "exec":
      return container.exec(
        {
          processJson: readText(params, "process"),
          terminal: params["terminal"] === true,
          plainNewlines: params["plainNewlines"] === true,
          consoleSocket: typeof params["consoleSocket"] === "string" ? params["consoleSocket"] : null,
          size: readSize(params["size"]) ?? null,
          ignorePaused: params["ignorePaused"] === true,
          cgroup: typeof params["cgroup"] === "string" ? params["cgroup"] : "",
        },
        signal,
      );
    case "execStarted": {
      const execId = params["execId"];
      return { pid: await container.execStarted(typeof execId === "string" ? execId : missing("execId")) };
    }
    case "standIns":
      return { pids: await container.standIns() };
    case "delete":
      await supervisor.discard();
      return {};
    default:
      return method satisfies never;
  }
}

/** A message of the agent as JSON can carry it: its 64-bit numbers are times and sizes far below 2^53. */
function plain(message: object): object {
  return JSON.parse(JSON.stringify(message, (_, value: unknown) => (typeof value === "bigint" ? Number(value) : value))) as object;
}

function missing(name: string): never {
  throw new HuskError("invalid-argument", `the call lacks ${name}, or it has another type`);
}

function readInteger(params: Params, name: string, least: number, most: number): number {
  const value = params[name];
  return typeof value === "number" && Number.isInteger(value) && value >= least && value <= most ? value : missing(name);
}

/** A document that travels as text, since its 64-bit numbers would not survive the trip as numbers. */
function readText(params: Params, name: string): string {
  const value = params[name];
  return typeof value === "string" ? value : missing(name);
}

function readSize(value: unknown): WindowSize | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { rows, columns } = value as Partial<Record<keyof WindowSize, unknown>>;
  return typeof rows === "number" && typeof columns === "number" ? { rows, columns } : undefined;
}
