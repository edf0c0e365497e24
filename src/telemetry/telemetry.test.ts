import { expect, test } from "vitest";
import { tellOperation, wantsSpans } from "./telemetry.ts";

const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318" };

test.each<[string, NodeJS.ProcessEnv, boolean]>([
  ["nothing is said", {}, false],
  ["an endpoint is named", endpoint, true],
  ["an endpoint for traces is named", { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://collector:4318/v1/traces" }, true],
  ["the exporter is named", { OTEL_TRACES_EXPORTER: "otlp" }, true],
  ["the exporter is among others", { OTEL_TRACES_EXPORTER: "console, otlp" }, true],
  ["there is an endpoint, and no exporter of traces", { ...endpoint, OTEL_TRACES_EXPORTER: "none" }, false],
  ["all of it is turned off", { ...endpoint, OTEL_SDK_DISABLED: "TRUE" }, false],
  ["the protocol is the one that there is", { ...endpoint, OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf" }, true],
  ["an endpoint is empty, which is as if it were not there", { OTEL_EXPORTER_OTLP_ENDPOINT: " " }, false],
])("where %s", (_, env, wanted) => {
  expect(wantsSpans(env)).toEqual({ wanted });
});

test("what cannot be had is said by name", () => {
  expect(wantsSpans({ OTEL_TRACES_EXPORTER: "zipkin" }).note).toBe(
    'no spans are exported: OTEL_TRACES_EXPORTER is "zipkin", and husk has otlp alone',
  );
  expect(wantsSpans({ ...endpoint, OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: "grpc" }).note).toBe(
    'no spans are exported: the OTLP protocol is "grpc", and husk has http/protobuf alone',
  );
});

test("a receiver that is not there is a warning, and nothing else", async () => {
  const warned = new Promise<string>((resolve) => {
    const operation = { name: "husk run", startMs: 1, marks: [], attributes: {}, parent: {} };
    process.env["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:1";
    process.env["OTEL_EXPORTER_OTLP_TIMEOUT"] = "500";
    tellOperation(operation, process.env, resolve);
  });
  expect(await warned).toMatch(/^the spans of "husk run" could not be exported: /);
  delete process.env["OTEL_EXPORTER_OTLP_ENDPOINT"];
  delete process.env["OTEL_EXPORTER_OTLP_TIMEOUT"];
});
