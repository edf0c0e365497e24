/** `husk completion`: scripts for shells, from the tables that parse the command line. */
import { HuskError } from "../errors.ts";
import type { Invocation } from "./command-line.ts";
import type { FlagTable } from "./flags.ts";
import { globalFlags } from "./globals.ts";
import { print } from "./output.ts";
import { verbNames, verbs } from "./verbs.ts";

export function completion({ operands: [shell = ""] }: Invocation<"completion">): void {
  if (shell === "bash") print(bashScript());
  else if (shell === "zsh") print(`#compdef husk\nautoload -U +X bashcompinit && bashcompinit\n${bashScript()}`);
  else throw new HuskError("invalid-argument", `completion is for bash or zsh, not for ${JSON.stringify(shell)}`);
}

/** Verbs first, then a verb's flags, and the ids of containers where a verb takes one. */
export function bashScript(): string {
  const cases = verbNames.map((name) => `    ${name}) flags="${names(verbs[name].flags)}" ;;`).join("\n");
  const takesId = verbNames.filter((name) => verbs[name].operands.startsWith("<container-id>")).join("|");
  return `_husk() {
  local word=\${COMP_WORDS[COMP_CWORD]} verb= flags= index
  for ((index = 1; index < COMP_CWORD; index++)); do
    case \${COMP_WORDS[index]} in
    --root | --log | --log-format | --cgroup-manager | --criu) ((index++)) ;;
    -*) ;;
    *) verb=\${COMP_WORDS[index]}; break ;;
    esac
  done
  case $verb in
    "") COMPREPLY=($(compgen -W "${verbNames.join(" ")} ${names(globalFlags)}" -- "$word")); return ;;
${cases}
  esac
  if [[ $word == -* ]]; then COMPREPLY=($(compgen -W "$flags --help" -- "$word")); return; fi
  case $verb in
    ${takesId}) COMPREPLY=($(compgen -W "$(husk list -q 2>/dev/null)" -- "$word")) ;;
    *) COMPREPLY=($(compgen -f -- "$word")) ;;
  esac
}
complete -F _husk husk
`;
}

function names(flags: FlagTable): string {
  return Object.entries(flags)
    .filter(([, { refused }]) => refused === undefined)
    .map(([name]) => `--${name}`)
    .join(" ");
}
