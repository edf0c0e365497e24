/** Seccomp profiles, compiled on the host: libseccomp takes a guest that is emulated a hundred times as long. */
import { HuskError } from "../errors.ts";
import { checked, integer, object, read, string } from "../narrow.ts";
import type { CompiledSeccomp } from "../oci/guest-spec.ts";
import { parseJson, stringifyJson } from "../oci/json.ts";
import type { Seccomp } from "../oci/types.ts";
import { callHelper } from "./helper-call.ts";

const instructions = checked(string, (text) => (/^([0-9a-f]{16})+$/.test(text) ? undefined : "expected instructions"));
const reader = object<CompiledSeccomp>({ flags: integer(0, 0xffff_ffff), program: instructions });

/** Compiles linux.seccomp (runtime-spec, config-linux.md, "Seccomp"). Throws `unsupported` with the name of what cannot be carried out, `host`. */
export async function compileSeccomp(helper: string, profile: Seccomp): Promise<CompiledSeccomp> {
  const failure = "config.json: linux.seccomp cannot be carried out";
  const answer = await callHelper(helper, { args: ["seccomp"], input: stringifyJson(profile), failure, code: "unsupported" });
  try {
    return read(reader, parseJson(answer, "the answer"));
  } catch (cause) {
    throw new HuskError("internal", `${failure}: the helper's answer makes no sense`, { cause });
  }
}
