import { Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { expect, test } from "vitest";
import { agentError } from "./agent-error.ts";

function raised(code: status, details: string): ServiceError {
  return Object.assign(new Error(details), { code, details, metadata: new Metadata() });
}

test("what the wire's encoding has left in a message is decoded", () => {
  const { message } = agentError("CreateContainer", raised(status.UNKNOWN, "load it (has the kernel BPF%3F): %23 1, 50%"));
  expect(message).toBe("the guest's agent failed CreateContainer: load it (has the kernel BPF?): # 1, 50%");
});

test("a failure without words is told by its code", () => {
  expect(agentError("SetSysctls", raised(status.UNIMPLEMENTED, "")).message).toBe("the guest's agent failed SetSysctls: UNIMPLEMENTED");
});
