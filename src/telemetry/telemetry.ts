/**
 * OpenTelemetry: whether somebody wants to hear of the starts of containers, and telling it. Configured by OpenTelemetry's own environment variables
 * (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/); where they say nothing, nothing is loaded, and nothing is sent.
 */
import { explain } from "../errors.ts";

/** A point in time that was reached: see Trace. */
export interface Mark {
  readonly name: string;
  /** Milliseconds since 1970. */
  readonly atMs: number;
}

/** Something that was done, as a span with a child for each of its phases, which lasted from the mark before it, or the start, to its own. */
export interface Operation {
  /** Such as "husk run". */
  readonly name: string;
  readonly startMs: number;
  readonly marks: readonly Mark[];
  readonly attributes: Readonly<Record<string, string | number | boolean>>;
  /** Why it failed; absent where it did not. */
  readonly failure?: { readonly type: string; readonly message: string } | undefined;
  /** The span that it is a part of, as W3C's trace context has it. */
  readonly parent: Parent;
}

export interface Parent {
  readonly traceparent?: string | undefined;
  readonly tracestate?: string | undefined;
}

/** The parent that the environment names: https://opentelemetry.io/docs/specs/otel/context/env-carriers/ */
export function parentOf(env: NodeJS.ProcessEnv): Parent {
  return { traceparent: env["TRACEPARENT"], tracestate: env["TRACESTATE"] };
}

/** Whether spans are wanted, and a sentence where what is asked for cannot be had. */
export type Wanted = { readonly wanted: boolean; readonly note?: string };

/** What this husk exports with: the specification's default. */
const protocol = "http/protobuf";

/**
 * Spans go out where an endpoint, or the exporter, is named. That is less than the specification's default, which dials localhost without being asked:
 * a container runtime must not.
 */
export function wantsSpans(env: NodeJS.ProcessEnv): Wanted {
  const value = (name: string): string => env[name]?.trim() ?? "";
  if (value("OTEL_SDK_DISABLED").toLowerCase() === "true") return { wanted: false };
  const exporters = value("OTEL_TRACES_EXPORTER")
    .split(",")
    .map((each) => each.trim())
    .filter((each) => each !== "");
  const hasEndpoint = value("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") !== "" || value("OTEL_EXPORTER_OTLP_ENDPOINT") !== "";
  if (exporters.length === 0 ? !hasEndpoint : exporters.every((each) => each === "none")) return { wanted: false };
  const other = exporters.find((each) => each !== "otlp" && each !== "none");
  if (other !== undefined && !exporters.includes("otlp")) {
    return { wanted: false, note: `no spans are exported: OTEL_TRACES_EXPORTER is ${JSON.stringify(other)}, and husk has otlp alone` };
  }
  const asked = value("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") || value("OTEL_EXPORTER_OTLP_PROTOCOL") || protocol;
  if (asked !== protocol) {
    return { wanted: false, note: `no spans are exported: the OTLP protocol is ${JSON.stringify(asked)}, and husk has ${protocol} alone` };
  }
  return { wanted: true };
}

/**
 * Tells of an operation that is over, where somebody wants to know. Returns at once and never throws: nothing waits for it but the end of this process, for
 * as long as OTEL_EXPORTER_OTLP_TIMEOUT says. `warn` is told what went wrong.
 */
export function tellOperation(operation: Operation, env: NodeJS.ProcessEnv, warn: (message: string) => void): void {
  const { wanted, note } = wantsSpans(env);
  if (note !== undefined) warn(note);
  if (!wanted) return;
  const exported = import("./otlp.ts").then(({ exportOperation }) => exportOperation(operation, env));
  exported.catch((error: unknown) => warn(`the spans of "${operation.name}" could not be exported: ${explain(error)}`));
}
