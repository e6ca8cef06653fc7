# shellcheck shell=bash
# What the scripts share; sourced, never run. Sets $root, the project's folder, so that every script works from anywhere.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)

# say TEXT...: news for the person at the terminal. On stderr, because stdout is for results.
say() { printf '%s\n' "$*" >&2; }

# die TEXT...: says what is wrong and how to go on, and gives up.
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# model_field NAME KEY [FILE]: prints the values of a key of a model's record, one a line; nothing when there are none.
model_field() {
    awk -v want="$1" -v key="$2" '
        /^#/ { next }
        /^[ \t\r]*$/ { name = ""; next }
        {
            sub(/[ \t\r]+$/, "")
            split_at = index($0, ":")
            k = substr($0, 1, split_at - 1)
            v = substr($0, split_at + 1)
            sub(/^[ \t]+/, "", v)
            if (k == "name") name = v
            if (name == want && k == key) print v
        }' "${3:-$root/models.txt}"
}

# model_names [FILE]: the names of all models, one a line.
model_names() { sed -n 's/[[:space:]]*$//; s/^name:[[:space:]]*//p' "${1:-$root/models.txt}"; }

# can_compile: true if there is a C compiler that also finds the C library's headers (minimal systems lack them).
can_compile() {
    have cc && printf '#include <stdio.h>\n#include <pthread.h>\n' | cc -E - >/dev/null 2>&1
}

# install_packages PACKAGE...: installs Debian packages, after saying so. Returns 1, with the reason said, when it cannot.
install_packages() {
    local as_root=() log
    [ $# -gt 0 ] || return 0
    if ! have apt-get; then
        say "Missing here: $* (names of Debian packages). This system has no apt-get:"
        say "install what corresponds to them with its own package manager, then run this again."
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! have sudo; then
            say "Missing here: $*. Installing them takes root, and there is no sudo. As root, run"
            say "    apt-get update && apt-get install $*"
            say "then run this again."
            return 1
        fi
        as_root=(sudo)
    fi
    say "Installing with apt-get${as_root[0]:+ (through sudo)}: $*"
    log=$(mktemp) || return 1
    # A freshly started server often holds apt's lock for its own updates: wait for it instead of failing.
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
    if ! "${apt[@]}" update >"$log" 2>&1 </dev/null; then
        say "apt-get update failed; trying with the package lists that are here."
    fi
    if ! "${apt[@]}" install -y --no-install-recommends "$@" >>"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        say "apt-get could not install: $*"
        say "Is the package mirror reachable? Try: apt-get update && apt-get install $*"
        return 1
    fi
    rm -f "$log"
}

# missing_build_packages: the packages, one a line, that a build still needs on this machine.
missing_build_packages() {
    can_compile || printf '%s\n' gcc libc6-dev
    have meson || echo meson
    have ninja || have ninja-build || echo ninja-build
}

# check_meson: gives up when meson is too old for meson.build.
check_meson() {
    local version
    version=$(meson --version) || die "meson does not run; reinstall it: apt-get install --reinstall meson"
    case $version in
        0.*) die "meson $version is too old: quern needs 1.0 or later (Debian 12, Ubuntu 24.04). Newer: pipx install meson" ;;
    esac
}

# configure FOLDER OPTION...: sets up a build folder, or reuses it if it was set up with the same options at the same place.
configure() {
    local folder=$1 stamp=$1/quern-options options
    shift
    options="$root ${CC:-cc} $*"
    if [ -f "$folder/build.ninja" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$options" ]; then
        return 0
    fi
    local wipe=()
    [ ! -d "$folder/meson-private" ] || wipe=(--wipe)
    (cd "$root" && meson setup "${wipe[@]}" "$folder" "$@") || return 1
    printf '%s\n' "$options" >"$stamp"
}
