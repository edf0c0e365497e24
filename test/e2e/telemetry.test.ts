/** OpenTelemetry: what a receiver hears of a container's start, and that nobody waits for it. */
import { describe, expect } from "vitest";
import { type Host, test } from "../harness/host.ts";
import { OtlpReceiver } from "../harness/otlp.ts";
import { Program } from "../harness/program.ts";
import { isHusk } from "../harness/runtime.ts";

function receive(...words: readonly string[]): Promise<OtlpReceiver> {
  return OtlpReceiver.start(([program = "", ...args], options) => new Program(program, args, options), words);
}

const trace = "0af7651916cd43dd8448eb211c80319c";
const caller = "b7ad6b7169203331";

function environment({ endpoint }: OtlpReceiver): Record<string, string> {
  return { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, OTEL_SERVICE_NAME: "acme", TRACEPARENT: `00-${trace}-${caller}-01` };
}

function run(host: Host, env: Record<string, string>, bundle: string, id: string) {
  return host.launch(["run", "--bundle", bundle, id], { env }).ended();
}

describe.runIf(isHusk)("spans", () => {
  test("of a run: a part of the caller's trace, with a child for each phase", async ({ host }) => {
    await using receiver = await receive();
    const id = host.name();
    expect(await run(host, environment(receiver), host.script("echo hello").path, id)).toEqual({
      status: 0,
      stdout: "hello\n",
      stderr: "",
    });
    const { whole, phases } = await receiver.operation("husk run");
    expect(whole).toMatchObject({
      traceId: trace,
      parentSpanId: caller,
      status: { code: 0 },
      attributes: { "container.id": id, "container.runtime.name": "husk" },
      resource: { "service.name": "acme" },
    });
    const names = phases.map(({ name }) => name);
    expect(names[0]).toBe("Node and husk loaded");
    expect(names).toContain("bundle read and checked");
    expect(names.at(-1)).toBe("program runs");
    let at = whole.start;
    for (const { name, start, end, traceId, status } of phases) {
      expect([traceId, status.code, start === at, end >= start], name).toEqual([trace, 0, true, true]);
      at = end;
    }
    expect(whole.end).toBe(at);
  });

  test("of a run that fails: an error, with its words", async ({ host }) => {
    await using receiver = await receive();
    const bundle = host.bundle({ process: { args: ["/nosuch"] } });
    const { status, stderr } = await run(host, environment(receiver), bundle.path, host.name());
    expect([status === 0, stderr]).toEqual([false, expect.stringContaining("/nosuch")]);
    const { whole } = await receiver.operation("husk run");
    expect(whole.status).toEqual({ code: 2, message: expect.stringContaining("/nosuch") });
    expect(whole.attributes["error.type"]).toMatch(/^[a-z-]+$/);
  });

  test("of create and of start, where these are two", async ({ host }) => {
    await using receiver = await receive();
    const { id, program } = await host.create(host.script("echo hello"), [], { env: environment(receiver) });
    const created = await receiver.operation("husk create");
    await host.ok("start", id);
    const started = await receiver.operation("husk start");
    expect((await program.ended()).stdout).toBe("hello\n");
    await host.until(async () => (await host.state(id)).status === "stopped");
    await host.ok("delete", id);
    expect(created.phases.at(-1)?.name).toBe("container created");
    expect(started.phases.map(({ name }) => name)).toEqual(["network mirrored", "program runs"]);
    for (const { whole } of [created, started]) expect([whole.traceId, whole.attributes["container.id"]]).toEqual([trace, id]);
  });

  test("that nobody takes hold up nothing, and nothing is sent that the caller's sampling left out", async ({ host }) => {
    await using receiver = await receive("silent");
    const env = { ...environment(receiver), OTEL_EXPORTER_OTLP_TIMEOUT: "2000" };
    const unsampled = { ...env, TRACEPARENT: `00-${trace}-${caller}-00` };
    const bundle = host.script("echo hello");
    for (const each of [unsampled, env]) {
      expect(await run(host, each, bundle.path, host.name())).toEqual({ status: 0, stdout: "hello\n", stderr: "" });
      expect(await host.ok("list", "-q")).toBe("");
    }
    await receiver.waitFor(1);
    expect(receiver.requests).toBe(1);
  });
});
