/** One call of the helper: a program that reads its standard input, prints an answer, and ends. */
import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import { type ErrorCode, HuskError } from "../errors.ts";
import { Tail } from "./tail.ts";

export interface HelperCall {
  readonly args: readonly string[];
  /** What it reads. */
  readonly input: string;
  /** What has failed where it does, in words for a user; what the helper says of it follows. */
  readonly failure: string;
  /** The class of such a failure; `host` where nothing is said. */
  readonly code?: ErrorCode;
}

/** Answers what the helper prints. Throws `host` where it cannot be started, `call.code` where it does not succeed. */
export async function callHelper(helper: string, { args, input, failure, code = "host" }: HelperCall): Promise<string> {
  const child = spawn(helper, args, { stdio: ["pipe", "pipe", "pipe"] });
  const said = new Tail();
  child.stderr.on("data", (chunk: Buffer) => said.add(chunk));
  child.stdin.on("error", () => {}); // its end says why
  child.stdin.end(input);
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once("error", (cause) => reject(new HuskError("host", failure, { cause })));
    child.once("close", resolve);
  });
  const [status, answer] = await Promise.all([ended, text(child.stdout)]);
  if (status !== 0) throw new HuskError(code, `${failure}: ${said.lines(3).join(" | ")}`);
  return answer;
}
