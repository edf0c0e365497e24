/** What a guest is told that makes it itself, and not its siblings of the same template. */
import { randomBytes } from "node:crypto";
import type { AgentClient } from "../agent/agent-client.ts";
import { HuskError } from "../errors.ts";
import type { SandboxSpec, sharedFolders } from "./sandbox-plan.ts";

/** What the guest said of itself. */
export interface GuestIdentity {
  readonly agentVersion: string;
  readonly kernelRelease: string;
  /** What the agent did to make this guest itself and no other: see `identity`. */
  readonly done: readonly string[];
}

/** All of what it is told, which it has to have done. */
const identity = ["clock", "random", "hostname", "machine-id"];

/**
 * Makes the guest that of the sandbox `own`, and no other's. `shares`: what it is to mount of the host's; one that waited in a pool has it. Throws `guest`, and as
 * the call does.
 */
export async function introduce(
  agent: AgentClient,
  { id, hostname }: Pick<SandboxSpec, "id" | "hostname">,
  shares: ReturnType<typeof sharedFolders>,
  deadlineMs: number,
): Promise<GuestIdentity> {
  const answer = await agent.call(
    "createSandbox",
    {
      sandboxId: id,
      hostname,
      clockUnixNs: BigInt(Date.now()) * 1_000_000n,
      randomSeed: randomBytes(64),
      machineId: randomBytes(16).toString("hex"),
      shares,
    },
    deadlineMs,
  );
  const undone = identity.filter((part) => !answer.done.includes(part));
  if (undone.length > 0) throw new HuskError("guest", `the guest did not set its ${undone.join(", ")}`);
  return { agentVersion: answer.agentVersion, kernelRelease: answer.kernelRelease, done: answer.done };
}
