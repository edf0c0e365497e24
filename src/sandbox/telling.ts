/** Tells OpenTelemetry how containers come to run, where that is configured (telemetry/telemetry.ts): the marks of a trace, as spans. */
import { explain, HuskError } from "../errors.ts";
import { type Operation, type Parent, tellOperation } from "../telemetry/telemetry.ts";
import type { Trace } from "./trace.ts";

export interface TellerOptions {
  readonly trace: Trace;
  readonly container: string;
  /** Further attributes of the spans. */
  readonly attributes?: Operation["attributes"];
  readonly parent: Parent;
  /** Is told why spans could not be exported. */
  readonly warn: (message: string) => void;
  /** Takes what is to be told; in a test, somebody else. */
  readonly send?: typeof tellOperation;
}

export class Teller {
  readonly #options: TellerOptions;
  readonly #told = new Set<string>();

  constructor(options: TellerOptions) {
    this.#options = options;
  }

  /** Tells of an operation that is over: with `error`, as one that failed. Later calls for the same one have no effect. Never throws, nor waits. */
  tell(name: string, startMs: number, error?: unknown): void {
    if (this.#told.has(name)) return;
    this.#told.add(name);
    const { trace, container, attributes, parent, warn, send = tellOperation } = this.#options;
    const operation: Operation = {
      name,
      startMs,
      marks: trace.marks.filter(({ atMs }) => atMs >= startMs),
      attributes: { "container.id": container, "container.runtime.name": "husk", ...attributes },
      parent,
      ...(error === undefined ? {} : { failure: { type: typeOf(error), message: explain(error) } }),
    };
    send(operation, process.env, warn);
  }

  /** Does `work`, and tells of it. */
  async around<T>(name: string, work: () => Promise<T>): Promise<T> {
    const startMs = Date.now();
    try {
      const result = await work();
      this.tell(name, startMs);
      return result;
    } catch (error) {
      this.tell(name, startMs, error);
      throw error;
    }
  }
}

/** A failure's sort, in few words: https://opentelemetry.io/docs/specs/semconv/registry/attributes/error/ */
function typeOf(error: unknown): string {
  if (error instanceof HuskError) return error.code;
  return error instanceof Error ? error.name : "_OTHER";
}
