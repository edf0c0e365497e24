/** Operations as OpenTelemetry's spans, sent by OTLP over HTTP. A program of its own (tools/build.ts), since few processes need it. */
import { context, defaultTextMapGetter, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from "@opentelemetry/api";
import { ExportResultCode, W3CTraceContextPropagator } from "@opentelemetry/core";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { defaultResource, detectResources, envDetector, resourceFromAttributes } from "@opentelemetry/resources";
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  ParentBasedSampler,
  type ReadableSpan,
  type Sampler,
  type SpanProcessor,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from "@opentelemetry/sdk-trace";
import { version } from "../version.ts";
import { trustAsNodeDoes } from "./certificates.ts";
import type { Operation } from "./telemetry.ts";

/** Keeps the spans that have ended. */
class Collection implements SpanProcessor {
  readonly spans: ReadableSpan[] = [];

  onStart(): void {}

  onEnd(span: ReadableSpan): void {
    if ((span.spanContext().traceFlags & 1) === 1) this.spans.push(span); // a span that is not sampled is nobody's
  }

  async forceFlush(): Promise<void> {}

  async shutdown(): Promise<void> {}
}

/** Sends one operation. Rejects where the receiver did not take it. */
export async function exportOperation(operation: Operation, env: NodeJS.ProcessEnv): Promise<void> {
  const spans = spansOf(operation, env);
  if (spans.length === 0) return;
  trustAsNodeDoes();
  const exporter = new OTLPTraceExporter();
  try {
    await new Promise<void>((resolve, reject) => {
      exporter.export([...spans], ({ code, error }) => {
        if (code === ExportResultCode.SUCCESS) resolve();
        else reject(error ?? new Error("the receiver did not take them"));
      });
    });
  } finally {
    await exporter.shutdown();
  }
}

function spansOf({ name, startMs, marks, attributes, failure, parent }: Operation, env: NodeJS.ProcessEnv): readonly ReadableSpan[] {
  const collection = new Collection();
  const own = resourceFromAttributes({ "service.name": "husk", "service.version": version });
  const resource = defaultResource()
    .merge(own)
    .merge(detectResources({ detectors: [envDetector] }));
  const provider = new TracerProvider({ resource, sampler: samplerOf(env), spanProcessors: [collection] });
  const tracer = provider.getTracer("husk", version);
  const carrier = {
    ...(parent.traceparent === undefined ? {} : { traceparent: parent.traceparent }),
    ...(parent.tracestate === undefined ? {} : { tracestate: parent.tracestate }),
  };
  const above = new W3CTraceContextPropagator().extract(ROOT_CONTEXT, carrier, defaultTextMapGetter);
  const whole = tracer.startSpan(name, { kind: SpanKind.INTERNAL, startTime: startMs, attributes }, above);
  const within = trace.setSpan(context.active(), whole);
  let from = startMs;
  for (const mark of marks) {
    tracer.startSpan(mark.name, { startTime: from }, within).end(mark.atMs);
    from = mark.atMs;
  }
  const end = failure === undefined ? from : Math.max(from, Date.now());
  if (failure !== undefined) {
    whole.setAttribute("error.type", failure.type);
    whole.setStatus({ code: SpanStatusCode.ERROR, message: failure.message });
  }
  whole.end(end);
  return collection.spans;
}

/** The sampler that OTEL_TRACES_SAMPLER names. One that is not known is the default, as the specification has it. */
function samplerOf(env: NodeJS.ProcessEnv): Sampler {
  const ratio = Number(env["OTEL_TRACES_SAMPLER_ARG"] || "1");
  const byRatio = new TraceIdRatioBasedSampler(ratio >= 0 && ratio <= 1 ? ratio : 1);
  switch (env["OTEL_TRACES_SAMPLER"]) {
    case "always_on":
      return new AlwaysOnSampler();
    case "always_off":
      return new AlwaysOffSampler();
    case "traceidratio":
      return byRatio;
    case "parentbased_always_off":
      return new ParentBasedSampler({ root: new AlwaysOffSampler() });
    case "parentbased_traceidratio":
      return new ParentBasedSampler({ root: byRatio });
    default:
      return new ParentBasedSampler({ root: new AlwaysOnSampler() });
  }
}
