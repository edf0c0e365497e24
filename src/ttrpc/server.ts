/**
 * A ttrpc server: unary calls and ttrpc 1.2's streams, many at a time on each connection. Knows nothing of husk but its errors.
 *
 *     const server = new TtrpcServer({ onFailure: (error, what) => log.warn({ error }, what) });
 *     server.register(TaskDefinition, { state: async ({ id }) => ({ id, status: Status.RUNNING }) });
 *     server.serve(createServer().listen("/run/husk/sock"));
 *     ...
 *     await server.close(1000);
 */
import type { Server as Listener } from "node:net";
import type { Duplex } from "node:stream";
import { GrpcCode, HuskError } from "../errors.ts";
import type { AnyHandler, ServedMethod } from "./server-call.ts";
import { ServerConnection } from "./server-connection.ts";
import type { Handlers, ServiceDefinition } from "./service.ts";
import { TtrpcError } from "./ttrpc-error.ts";

export interface TtrpcServerOptions {
  /**
   * Told of each call that failed, with the error and the method's full name, and of each connection that broke. For logs: the client has
   * been told already.
   */
  readonly onFailure?: (error: unknown, what: string) => void;
}

export class TtrpcServer implements AsyncDisposable {
  readonly #onFailure: (error: unknown, what: string) => void;
  readonly #services = new Map<string, Map<string, ServedMethod>>();
  readonly #listeners = new Set<Listener>();
  readonly #connections = new Set<ServerConnection>();
  #closed: Promise<void> | undefined;

  constructor(options: TtrpcServerOptions = {}) {
    this.#onFailure = options.onFailure ?? (() => {});
  }

  /**
   * Serves a service from now on, on every connection. `toTheEnd`: the methods, by their keys, that are called while the server is closing as well. Throws
   * `internal` where it is served already.
   */
  register<S extends ServiceDefinition>(service: S, handlers: Handlers<S>, toTheEnd: readonly (keyof S["methods"])[] = []): void {
    if (this.#services.has(service.fullName)) throw new HuskError("internal", `${service.fullName} is registered twice`);
    const methods = new Map<string, ServedMethod>();
    for (const [key, definition] of Object.entries(service.methods)) {
      // `Handlers` has checked that the handler fits the definition.
      const handler = (handlers as Readonly<Record<string, AnyHandler | undefined>>)[key];
      if (handler !== undefined) {
        methods.set(definition.name, { definition, handler: handler.bind(handlers), toTheEnd: toTheEnd.includes(key) });
      }
    }
    this.#services.set(service.fullName, methods);
  }

  /** Serves every connection that `listener` accepts; `close` closes it. */
  serve(listener: Listener): void {
    this.#listeners.add(listener);
    listener.on("connection", (socket) => this.accept(socket));
  }

  /** Serves one connection, and owns it from here on. */
  accept(stream: Duplex): void {
    if (this.#closed !== undefined) {
      stream.destroy();
      return;
    }
    const connection = new ServerConnection(stream, {
      find: (service, method) => this.#find(service, method),
      onFailure: this.#onFailure,
    });
    this.#connections.add(connection);
    void connection.closed.then(() => this.#connections.delete(connection));
  }

  /**
   * Takes no more connections and no more calls, answers those that are going on, and waits until the clients have hung up; after `graceMs`
   * it does so itself, and what still goes on is aborted. Resolves when all connections are closed; never rejects.
   *
   * The clients go first because Go's ttrpc may take the end of a connection for the outcome of a call whose answer came just before it:
   * https://github.com/containerd/ttrpc/blob/v1.2.7/client.go (`dispatch` chooses at random between the two where it finds both).
   */
  close(graceMs: number): Promise<void> {
    this.#closed ??= this.#close(graceMs);
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close(0);
  }

  async #close(graceMs: number): Promise<void> {
    for (const listener of this.#listeners) listener.close();
    const connections = [...this.#connections];
    const reason = new TtrpcError(GrpcCode.unavailable, "the server is closing");
    const over = setTimeout(() => {
      for (const connection of connections) connection.destroy(reason);
    }, graceMs);
    for (const connection of connections) connection.finish();
    await Promise.all(connections.map(({ closed }) => closed));
    clearTimeout(over);
  }

  #find(service: string, method: string): ServedMethod {
    const methods = this.#services.get(service);
    if (methods === undefined) throw new TtrpcError(GrpcCode.unimplemented, `service ${service}`);
    const served = methods.get(method);
    if (served === undefined) throw new TtrpcError(GrpcCode.unimplemented, `method ${service}/${method}`);
    return served;
  }
}
