/** OpenTelemetry with containerd's shim, which has containerd's environment. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { TaskDefinition } from "../../src/gen/containerd/task/v2/task.ts";
import { TtrpcClient } from "../../src/ttrpc/client.ts";
import { Containerd } from "../harness/containerd.ts";
import { test } from "../harness/engines.ts";
import { OtlpReceiver } from "../harness/otlp.ts";
import { isHusk } from "../harness/runtime.ts";

const timeoutMs = 60_000;
const [trace, caller] = ["0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"];

test.runIf(isHusk)("spans of Create, Start and an exec, which is a part of the call that its metadata name", async ({ engines }) => {
  await using receiver = await OtlpReceiver.start((command, options) => engines.start(command, options));
  const containerd = await Containerd.start(engines, { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.endpoint });
  await containerd.detached("told", [], ["sleep", "1000"], async () => {
    const attributes = { "container.id": "told", "container.runtime.name": "husk", "containerd.namespace": "default" };
    const created = await receiver.operation("husk create");
    expect(created.whole).toMatchObject({ parentSpanId: "", status: { code: 0 }, attributes, resource: { "service.name": "husk" } });
    const names = created.phases.map(({ name }) => name);
    expect(names[0]).toBe("bundle read and checked");
    expect(names).toContain("VM launched");
    expect(names.at(-1)).toBe("container created");
    const started = await receiver.operation("husk start");
    expect(started.whole).toMatchObject({ parentSpanId: "", attributes });
    expect(started.phases.map(({ name }) => name)).toEqual(["program runs"]);

    const address = readFileSync(join(containerd.bundle("told"), "address"), "utf8").replace("unix://", "");
    await using client = await TtrpcClient.connect(engines.outside(address), { timeoutMs });
    const process = { args: ["nosuch"], cwd: "/", env: ["PATH=/bin"], user: { uid: 0, gid: 0 } };
    const spec = { typeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", value: Buffer.from(JSON.stringify(process)) };
    await client.call(TaskDefinition, "exec", { id: "told", execId: "further", spec }, { timeoutMs });
    const metadata = { traceparent: `00-${trace}-${caller}-01` };
    await expect(client.call(TaskDefinition, "start", { id: "told", execId: "further" }, { timeoutMs, metadata })).rejects.toThrow(
      "nosuch",
    );
    const failed = await receiver.operation("husk exec");
    expect(failed.whole).toMatchObject({
      traceId: trace,
      parentSpanId: caller,
      status: { code: 2, message: expect.stringContaining("nosuch") },
    });
    await client.call(TaskDefinition, "delete", { id: "told", execId: "further" }, { timeoutMs });
  });
});
