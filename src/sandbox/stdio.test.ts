import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { AgentClient } from "../agent/agent-client.ts";
import { Outputs } from "./outputs.ts";
import { pumpOutput, pumpStdin } from "./stdio.ts";

const target = { containerId: "c", processId: "" };

function closedClient(): AgentClient {
  const client = new AgentClient("/nonexistent/agent.sock", 1000);
  client.close();
  return client;
}

test("once the channel is closed, an input is given up at once, and an output ends", async () => {
  const source = new PassThrough();
  await pumpStdin(closedClient(), target, source);
  expect(source.destroyed).toBe(true);
  const sink = new PassThrough();
  await pumpOutput(closedClient(), target, "stdout", sink, new Outputs());
  expect(sink.writableFinished).toBe(true);
});
