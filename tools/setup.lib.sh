# The steps of tools/setup; sourced, in the root of the checkout, under set -euo pipefail.
# A step prints one line for the user on standard output; what its programs say goes to the log.

cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/husk
log=$cache/setup.log
export DEBIAN_FRONTEND=noninteractive

fail() {
  echo "setup: $1" >&2
  exit 1
}

# step NAME COMMAND...: runs one step and says how long it took; ends the set-up where it fails, with its last words.
step() {
  local name=$1 began status=0 words
  shift
  began=$(date +%s%N)
  # In a subshell outside of any condition: `set -e` would not hold in one.
  set +e
  words=$(set -e; "$@" 2>> "$log" < /dev/null)
  status=$?
  set -e
  if [ $status != 0 ]; then
    fail "$name failed: $(grep -v '^[[:space:]]*$' "$log" | tail -n 1); all it said: $log"
  fi
  words=$(tail -n 1 <<< "$words")
  local ms=$((($(date +%s%N) - began) / 1000000))
  printf 'setup: %-9s %s (%d.%d s)\n' "$name" "${words#*: }" $((ms / 1000)) $((ms % 1000 / 100))
}

# at_least VERSION WANTED: whether a dotted version is the wanted one or later.
at_least() { [ "$(printf '%s\n' "$2" "$1" | sort --version-sort | head -n 1)" = "$2" ]; }

# check_host: says everything that this host lacks, and how to get it, in one line.
check_host() {
  local missing=() version wanted
  [ "$(uname -sm)" = "Linux x86_64" ] || missing+=("an x86-64 Linux host (this is $(uname -sm))")
  if ! command -v apt-get > /dev/null || ! grep -qsE '^ID(_LIKE)?=.*debian' /etc/os-release; then
    missing+=("Debian 12 or later (this is $(sed -n 's/^PRETTY_NAME="\?\([^"]*\)"\?$/\1/p' /etc/os-release 2> /dev/null || true); QEMU and the guest kernel come from its packages)")
  fi
  [ "$(id -u)" = 0 ] || missing+=("root (packages are installed and virtual machines started as root: sudo -E npm run ...)")

  version=$(node --version 2> /dev/null || true)
  at_least "${version#v}" 20 || missing+=("Node 20 or later${version:+ (found $version)} (https://nodejs.org, or apt-get install nodejs npm on Debian 13)")
  command -v npm > /dev/null || missing+=("npm (apt-get install npm, or with Node from https://nodejs.org)")

  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' guest-agent/Cargo.toml)
  version=$(cd guest-agent && rustc --version 2> /dev/null | cut -d' ' -f2 || true)
  if ! command -v cargo > /dev/null || ! at_least "${version:-0}" "$wanted"; then
    missing+=("Rust $wanted or later${version:+ (found $version)} (https://rustup.rs, or apt-get install rustc-web cargo-web from Debian 12's security updates)")
  fi

  if [ ${#missing[@]} != 0 ]; then
    local line=${missing[0]} more
    for more in "${missing[@]:1}"; do line+="; $more"; done
    fail "this host lacks: $line"
  fi
  mkdir -p "$cache"
}

# packages: prints the Debian packages that are needed, by mode.
packages() {
  echo qemu-system-x86 seabios busybox-static kmod cpio patch xz-utils zstd binutils iproute2 gcc libc6-dev protobuf-compiler libseccomp-dev libcap-ng-dev
  if [ "$mode" != runtime ]; then
    echo linux-source-6.1 make bc bison flex libelf-dev libssl-dev # our own kernel
  fi
  if [ "$mode" = all ]; then
    echo runc mmdebstrap e2fsprogs erofs-utils strace procps python3 # the tests and benchmarks
    echo containerd docker.io podman conmon containernetworking-plugins iptables netavark aardvark-dns # the tests with engines
  fi
}

install_packages() {
  local missing=() package
  for package in $(packages); do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2> /dev/null | grep -qx installed || missing+=("$package")
  done
  if [ ${#missing[@]} = 0 ]; then
    echo "packages: up to date"
    return
  fi
  local apt=(apt-get -qq -o DPkg::Lock::Timeout=300)
  "${apt[@]}" update >> "$log" || {
    echo "apt-get update failed: is there a network? missing packages: ${missing[*]}" >> "$log"
    return 1
  }
  "${apt[@]}" install --yes --no-install-recommends "${missing[@]}" >> "$log" || {
    echo "apt-get install ${missing[*]} failed" >> "$log"
    return 1
  }
  echo "packages: installed ${missing[*]}"
}

# `npm install` and not `npm ci`: the lock file holds what Linux on x86-64 needs, and `npm ci` wants every other platform's optional
# packages in it as well. --no-save: the lock file is obeyed, and never written. The key is written last: an interrupted run is begun anew.
install_npm_packages() {
  local key
  key=$(cat package-lock.json | sha256sum | cut -c1-16)
  if [ "$(cat node_modules/.husk-key 2> /dev/null)" = "$key" ]; then
    echo "npm: up to date: Node $(node_modules/.bin/node --version)"
    return
  fi
  rm -f node_modules/.husk-key
  npm install --no-save --include=dev --include=optional --no-audit --no-fund --loglevel=error >> "$log" || {
    echo "npm install: $(sed -n 's/^npm error //p' "$log" | grep -v '^A complete log' | tail -n 1) (is there a network, and does it reach the npm registry?)" >> "$log"
    return 1
  }
  echo "$key" > node_modules/.husk-key
  echo "npm: installed packages, among them Node $(node_modules/.bin/node --version)"
}

# The programs of guest-agent/, put into guest-agent/target/release/. They are kept in the cache under a key of their sources, so that a
# fresh clone need not compile them again.
build_agent() {
  local key kept programs=(husk-agent husk-helper) program
  key=$({
    rustc --version
    find guest-agent proto/agent -path guest-agent/target -prune -o -type f -print0 | sort -z | xargs -0 sha256sum
  } | sha256sum | cut -c1-16)
  kept=$cache/programs/$key
  local release=guest-agent/target/release words="up to date"
  if [ ! -e "$kept" ]; then
    (cd guest-agent && CARGO_TARGET_DIR=$PWD/target cargo build --release --locked --target x86_64-unknown-linux-gnu >> "$log" 2>&1) || {
      echo "cargo build failed: $(grep -m 1 '^error' "$log")" >> "$log"
      return 1
    }
    rm -rf "$kept.new"
    mkdir -p "$kept.new"
    for program in "${programs[@]}"; do cp "guest-agent/target/x86_64-unknown-linux-gnu/release/$program" "$kept.new/"; done
    mv -T "$kept.new" "$kept"
    words="compiled"
  fi
  mkdir -p "$release"
  for program in "${programs[@]}"; do
    if ! cmp -s "$kept/$program" "$release/$program"; then
      cp "$kept/$program" "$release/.$program.new"
      mv -f "$release/.$program.new" "$release/$program"
      [ "$words" = compiled ] || words="taken from the cache"
    fi
  done
  echo "agent: $words: husk-agent $(($(stat -c %s $release/husk-agent) / 1024)) KiB, husk-helper $(($(stat -c %s $release/husk-helper) / 1024)) KiB"
}

# virtiofsd, the Rust one: Debian 12 has only its predecessor, which holds a file open for each that the guest remembers, and fails where a
# host's limit of open files is low. With two changes of ours. The guest keeps what it has read of a file that is unchanged when it is opened again:
# otherwise each execution of a program reads the program anew, which under emulation costs more than all the rest of an exec. And it goes on with a guest
# whose device is exchanged, for checkpoints. Kept in the cache by version and patches, and put beside the helper.
virtiofsd_version=1.14.0
virtiofsd_patches=(tools/virtiofsd/{keep-unchanged,hand-over}.patch)
build_virtiofsd() {
  local kept target=guest-agent/target/release/virtiofsd words="up to date"
  kept=$cache/programs/virtiofsd-$virtiofsd_version-$(cat "${virtiofsd_patches[@]}" | sha256sum | cut -c1-16)
  if [ ! -e "$kept/bin/virtiofsd" ]; then
    compile_virtiofsd "$kept" >> "$log" 2>&1 || {
      echo "the build of virtiofsd failed: $(grep -m 1 -e '^error' -e FAILED "$log")" >> "$log"
      return 1
    }
    words=compiled
  fi
  if ! cmp -s "$kept/bin/virtiofsd" "$target"; then
    mkdir -p "${target%/*}"
    cp "$kept/bin/virtiofsd" "$target.new"
    mv -f "$target.new" "$target"
    [ "$words" = compiled ] || words="taken from the cache"
  fi
  echo "virtiofsd: $words: $virtiofsd_version"
}

# compile_virtiofsd FOLDER: from the crate's source, which cargo fetches, and checks, as a dependency of nothing.
compile_virtiofsd() {
  local work=$cache/virtiofsd-build source # outside of the checkout: guest-agent/ has settings for cargo that are not meant for it
  rm -rf "$work" && mkdir -p "$work/fetch" || return
  printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[lib]\npath = "lib.rs"\n[dependencies]\nvirtiofsd = "=%s"\n[workspace]\n' \
    $virtiofsd_version > "$work/fetch/Cargo.toml"
  touch "$work/fetch/lib.rs"
  cargo fetch --manifest-path "$work/fetch/Cargo.toml" --target x86_64-unknown-linux-gnu || return
  for source in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/virtiofsd-$virtiofsd_version; do break; done
  cp -r "$source" "$work/source" && cat "${virtiofsd_patches[@]}" | patch -d "$work/source" -p1 || return
  cargo install --path "$work/source" --locked --root "$1" --target-dir "$work/target" || return
  rm -rf "$work"
}

# Engines newer than this system's, for the tests: containerd 1.7 and Docker 26 of Debian 13, containerd 2 and Docker 28 of the Debian to come, unpacked and not
# installed. Their programs run on Debian 12 as they are; runc's would not, and is this system's. Docker's docker-init moves between its packages.
engine_programs=(usr/bin/{containerd,containerd-shim-runc-v2,ctr,docker,tini-static} usr/sbin/{dockerd,docker-proxy})
fetch_newer_engines() {
  fetch_engines trixie "Debian 13" newer-engines
  fetch_engines forky "Debian's next" newest-engines
  echo "engines: $(of_engines newer); $(of_engines newest)"
}

of_engines() {
  echo "$("$cache/$1-engines/dockerd" --version | cut -d, -f1), containerd $("$cache/$1-engines/containerd" --version | cut -d' ' -f3)"
}

# fetch_engines SUITE ITS_NAME FOLDER: puts a suite's engines into the cache. A suite that is not released yet has indices that go out of date, where a mirror is
# behind.
fetch_engines() {
  local packages=docker.io,docker-cli,containerd key folder=$cache/$3 work=$cache/$3.new
  key=$(echo "$1" "$packages" "${engine_programs[@]}" | sha256sum | cut -c1-16)
  [ "$(cat "$folder/.key" 2> /dev/null)" != "$key" ] || return 0
  rm -rf "$work" "$work.root" && mkdir "$work"
  mmdebstrap --variant=extract --include="$packages" --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
    "$1" "$work.root" >> "$log" 2>&1 || {
    echo "getting $packages of $2 failed: is there a network? $(grep -m 1 '^E:' "$log")" >> "$log"
    return 1
  }
  (cd "$work.root" && cp "${engine_programs[@]}" "$work/")
  mv "$work/tini-static" "$work/docker-init"
  echo "$key" > "$work/.key"
  rm -rf "$folder" "$work.root"
  mv -T "$work" "$folder"
}

build_bundle() {
  local key
  key=$(find src tools/build.ts package-lock.json -type f ! -name '*.test.ts' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
  if [ "$(cat dist/.key 2> /dev/null)" = "$key" ]; then
    echo "bundle: up to date"
    return
  fi
  node tools/build.ts >> "$log"
  echo "$key" > dist/.key
  echo "bundle: dist/ made of src/"
}
