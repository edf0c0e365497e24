# Shared by the scripts below images/: where results are kept, and how they get there in one piece.
# Sourced, never run. The caller has set -euo pipefail.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/husk
mkdir -p "$cache"

# fail MESSAGE: ends with one line that says what failed and what to do.
fail() {
  echo "${0##*/}: $1" >&2
  exit 1
}

# digest: the first 16 hexadecimal digits of the SHA-256 of standard input, as a name for what was made from it.
digest() { sha256sum | cut -c1-16; }

# need PROGRAM PACKAGE: fails where a program is missing, with the Debian package that has it.
need() { command -v "$1" >/dev/null || fail "no $1: apt-get install $2"; }

# exclusive NAME: one of these at a time on this machine; the lock ends with the process.
exclusive() {
  exec {lock}>"$cache/$1.lock"
  flock "$lock"
}

# stage: prints a new folder on the cache's file system; what an interrupted run left there is removed first.
# Call it under `exclusive`, with a name of the caller's own.
stage() {
  rm -rf "${cache:?}/staging.$1"
  mkdir -p "$cache/staging.$1"
  echo "$cache/staging.$1"
}

# publish FOLDER TARGET: puts a finished folder in its place, read-only, by one rename.
publish() {
  find "$1" -type f -exec chmod a-w {} +
  mkdir -p "$(dirname "$2")"
  rm -rf "$2"
  mv -T "$1" "$2"
}
