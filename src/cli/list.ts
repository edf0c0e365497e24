/** `husk list`: from disk. A record that cannot be read is told of and does not hide the others. */
import { explain, HuskError } from "../errors.ts";
import { listRecords } from "../sandbox/record.ts";
import type { Invocation } from "./command-line.ts";
import type { Log } from "./log.ts";
import { print, table } from "./output.ts";
import { publicState } from "./state.ts";

export function list({ globals, flags }: Invocation<"list">, log: Log): void {
  const format = flags.format ?? "table";
  if (format !== "table" && format !== "json") {
    throw new HuskError("invalid-argument", `--format: expected table or json, got ${JSON.stringify(format)}`);
  }
  const { records, errors } = listRecords(globals.root);
  for (const error of errors) log.warning(explain(error));
  if (flags.quiet) print(records.map(({ id }) => `${id}\n`).join(""));
  else if (format === "json") print(`${JSON.stringify(records.map(publicState))}\n`);
  else {
    const rows = records.map(({ id, pid, status, bundle, created, owner }) => [id, String(pid), status, bundle, created, owner]);
    print(table([["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"], ...rows]));
  }
}
