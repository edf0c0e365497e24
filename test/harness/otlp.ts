/** A receiver of OpenTelemetry's spans, and what it has received: as much of OTLP's messages as the tests look at. */
import { resolve } from "node:path";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import type { Program, ProgramOptions } from "./program.ts";

const receiver = resolve(import.meta.dirname, "../fixtures/otlp-receiver.ts");

export interface ReceivedSpan {
  readonly name: string;
  readonly traceId: string;
  readonly spanId: string;
  /** "": it is nobody's child. */
  readonly parentSpanId: string;
  /** Nanoseconds since 1970. */
  readonly start: bigint;
  readonly end: bigint;
  /** 0 unset, 1 ok, 2 error. */
  readonly status: { readonly code: number; readonly message: string };
  readonly attributes: Readonly<Record<string, string>>;
  /** Those of the resource. */
  readonly resource: Readonly<Record<string, string>>;
}

export class OtlpReceiver {
  /** What OTEL_EXPORTER_OTLP_ENDPOINT is to say. */
  readonly endpoint: string;
  readonly #program: Program;

  /** `start`: starts a program where those run whose spans are to come. */
  static async start(
    start: (command: readonly string[], options: ProgramOptions) => Program,
    words: readonly string[] = [],
  ): Promise<OtlpReceiver> {
    const program = start([process.execPath, receiver, ...words], { stdin: "pipe" });
    await program.stdout?.until(/^port \d+\n/);
    const port = /^port (\d+)/.exec(program.stdout?.text() ?? "")?.[1];
    return new OtlpReceiver(program, `http://127.0.0.1:${port}`);
  }

  private constructor(program: Program, endpoint: string) {
    this.#program = program;
    this.endpoint = endpoint;
  }

  /** How many requests have come. */
  get requests(): number {
    return this.#lines.length;
  }

  /** Waits for the span of that name, and answers it with those that have it as their parent, in their order. */
  async operation(name: string): Promise<{ readonly whole: ReceivedSpan; readonly phases: readonly ReceivedSpan[] }> {
    for (let count = 1; ; count++) {
      const spans = this.#spans();
      const whole = spans.find((span) => span.name === name);
      if (whole !== undefined) return { whole, phases: spans.filter(({ parentSpanId }) => parentSpanId === whole.spanId) };
      await this.waitFor(count);
    }
  }

  /** Waits until so many requests have come. */
  async waitFor(count: number): Promise<void> {
    while (this.requests < count) await this.#program.stdout?.until("\n");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#program.stdin.end();
    await this.#program.ended();
  }

  get #lines(): readonly string[] {
    return (this.#program.stdout?.text() ?? "")
      .split("\n")
      .slice(0, -1)
      .filter((line) => line.startsWith("/"));
  }

  #spans(): ReceivedSpan[] {
    return this.#lines.flatMap((line) => {
      const [path, body = ""] = line.split(" ");
      if (path !== "/v1/traces") throw new Error(`a request came for ${path}`);
      return readRequest(Buffer.from(body, "base64"));
    });
  }
}

type Field = Uint8Array | bigint;

/** A message's fields by number, in the order in which they came. */
function fieldsOf(bytes: Uint8Array): (number: number) => readonly Field[] {
  const reader = new BinaryReader(bytes);
  const fields: [number, Field][] = [];
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    if (type === WireType.LengthDelimited) fields.push([number, reader.bytes()]);
    else if (type === WireType.Varint) fields.push([number, BigInt(reader.uint64())]);
    else if (type === WireType.Bit64) fields.push([number, BigInt(reader.fixed64())]);
    else reader.skip(type, number);
  }
  return (number) => fields.filter(([each]) => each === number).map(([, value]) => value);
}

function messages(fields: readonly Field[]): Uint8Array[] {
  return fields.filter((field) => field instanceof Uint8Array);
}

function text(fields: readonly Field[]): string {
  return Buffer.from(messages(fields)[0] ?? []).toString();
}

function hex(fields: readonly Field[]): string {
  return Buffer.from(messages(fields)[0] ?? []).toString("hex");
}

function number(fields: readonly Field[]): bigint {
  return (fields[0] as bigint | undefined) ?? 0n;
}

/** KeyValue messages, whose values are strings here. */
function attributes(pairs: readonly Field[]): Record<string, string> {
  return Object.fromEntries(
    messages(pairs).map((pair) => {
      const field = fieldsOf(pair);
      return [text(field(1)), text(fieldsOf(messages(field(2))[0] ?? new Uint8Array())(1))];
    }),
  );
}

/** opentelemetry/proto/collector/trace/v1/trace_service.proto: ExportTraceServiceRequest. */
function readRequest(body: Uint8Array): ReceivedSpan[] {
  return messages(fieldsOf(body)(1)).flatMap((resourceSpans) => {
    const resource = attributes(fieldsOf(messages(fieldsOf(resourceSpans)(1))[0] ?? new Uint8Array())(1));
    return messages(fieldsOf(resourceSpans)(2)).flatMap((scopeSpans) =>
      messages(fieldsOf(scopeSpans)(2)).map((span) => readSpan(span, resource)),
    );
  });
}

function readSpan(bytes: Uint8Array, resource: Record<string, string>): ReceivedSpan {
  const field = fieldsOf(bytes);
  const status = fieldsOf(messages(field(15))[0] ?? new Uint8Array());
  return {
    traceId: hex(field(1)),
    spanId: hex(field(2)),
    parentSpanId: hex(field(4)),
    name: text(field(5)),
    start: number(field(7)),
    end: number(field(8)),
    attributes: attributes(field(9)),
    status: { code: Number(number(status(3))), message: text(status(2)) },
    resource,
  };
}
