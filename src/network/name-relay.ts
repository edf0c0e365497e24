/** The engine's name server for the guest: what its programs ask 127.0.0.11 is asked in the host's network namespace, where the engine answers. */

import type { ServiceError } from "@grpc/grpc-js";
import type { AgentClient } from "../agent/agent-client.ts";
import { agentError } from "../agent/agent-error.ts";
import type { NamespaceService } from "./namespace-service.ts";

/** Questions at once; the agent holds the same bound, but need not be believed. */
const mostQuestions = 128;

export interface NameRelay {
  readonly close: () => void;
}

/** Resolves once the guest has its name server. `onEnd` is told when it has it no more, unless it was closed. Throws `guest`. */
export async function relayNames(agent: AgentClient, service: NamespaceService, onEnd: (error: Error) => void): Promise<NameRelay> {
  const call = agent.resolveNames();
  let open = 0;
  let over = false;
  const answer = (id: number, message: Buffer): void => {
    open -= 1;
    if (!over) call.write({ id, message });
  };
  call.on("data", ({ id, message, tcp }) => {
    if (open >= mostQuestions) return;
    open += 1;
    void service.ask(message, tcp).then(
      (found) => answer(id, found),
      () => answer(id, Buffer.alloc(0)), // the guest's program learns it as from any server that is silent
    );
  });
  await new Promise<void>((resolve, reject) => {
    call.once("metadata", () => resolve());
    call.on("error", (error: ServiceError) => {
      const ended = over;
      over = true;
      const told = agentError("ResolveNames", error);
      reject(told);
      if (!ended) onEnd(told);
    });
  });
  const close = (): void => {
    over = true;
    call.cancel();
  };
  return { close };
}
