#!/usr/bin/env bash
# Makes what emulated machines consist of, in a folder that is kept: Debian's kernel, and Bochs built from Debian's source with
# the corrections of patch-bochs.py.
#
# Usage: tests/emulated/make.sh FOLDER. Needs g++, make, xz and Debian's package archive, but not root. What is in the folder
# already is not fetched again, and nothing is done if all was made by this script as it is now. Ends with 77 if a part cannot be
# had.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../../scripts/common.sh"

folder=${1:?usage: make.sh FOLDER}
here=$root/tests/emulated

# What the machines are made by: if that changes, they are made anew.
recipe=$(cat "$here/make.sh" "$here/patch-bochs.py" "$here/boot.S" | sha256sum)

# private_apt COMMAND...: apt-get or apt-cache with an archive and a state of its own, in $folder/apt; the system's stays as it
# is.
private_apt() { APT_CONFIG=$folder/apt/apt.conf "$@"; }

# The archive that this system's package sources name, for another release of Debian and for source packages too.
prepare_apt() {
    local archive keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    have apt-get || { say "No apt-get, by which to find Debian's archive."; return 1; }
    # shellcheck disable=SC2016 # apt-get replaces it
    archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null |
        head -n 1)
    [ -n "$archive" ] || { say "The package sources name no archive of Debian, or apt-get update has never run."; return 1; }
    [ -e "$keyring" ] || { say "Debian's keys are missing: $keyring (package debian-archive-keyring)."; return 1; }
    mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial"
    : >"$folder/apt/status"
    cat >"$folder/apt/sources.list" <<END
deb [signed-by=$keyring] $archive bookworm main
deb-src [signed-by=$keyring] $archive trixie main
END
    cat >"$folder/apt/apt.conf" <<END
Dir::State "$folder/apt";
Dir::State::status "$folder/apt/status";
Dir::Cache "$folder/apt";
Dir::Etc::sourcelist "$folder/apt/sources.list";
Dir::Etc::sourceparts "-";
APT::Architecture "amd64";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
END
    private_apt apt-get -q -o Acquire::Retries=3 update >"$folder/apt.log" 2>&1 || { tail -n 3 "$folder/apt.log" >&2; return 1; }
    # apt-get calls it a warning if an archive cannot be reached, and goes on.
    if grep -E '^(W|E): Failed to fetch' "$folder/apt.log" >&2; then return 1; fi
}

fetch_kernel() {
    local package
    package=$(private_apt apt-cache depends linux-image-cloud-amd64 |
        awk '$1 == "Depends:" && $2 ~ /^linux-image/ && !found { found = 1; print $2 }')
    [ -n "$package" ] || { say "No kernel to be had: linux-image-cloud-amd64"; return 1; }
    rm -rf "$folder/kernel"
    (
        cd "$folder"
        rm -f linux-image-*.deb
        private_apt apt-get -q download "$package" >apt.log 2>&1 || { tail -n 3 apt.log >&2; exit 1; }
        dpkg-deb -x linux-image-*.deb kernel
        rm -f linux-image-*.deb
    )
}

fetch_source() {
    (cd "$folder" && private_apt apt-get -q source --download-only --tar-only bochs) >"$folder/apt.log" 2>&1 || {
        tail -n 3 "$folder/apt.log" >&2
        return 1
    }
    have_source || { say "The archive has another Bochs than 3.0: $(cd "$folder" && echo bochs_*)"; return 1; }
}

have_kernel() { compgen -G "$folder/kernel/boot/vmlinuz*" >/dev/null; }
have_source() { compgen -G "$folder/bochs_3.0*.orig.tar.xz" >/dev/null; }

build_emulator() {
    local options=(--quiet --with-nogui --enable-x86-64 --enable-cpu-level=6 --enable-avx --enable-evex --enable-amx
        --enable-handlers-chaining --disable-vmx --disable-svm --disable-docbook --disable-readline --disable-stats)
    say "Building the emulator in $folder (some four minutes)"
    rm -rf "$folder/bochs-3.0"
    tar -C "$folder" --no-same-owner -xf "$folder"/bochs_3.0*.orig.tar.xz || return 1
    python3 "$here/patch-bochs.py" "$folder/bochs-3.0" || return 1
    if ! (cd "$folder/bochs-3.0" && ./configure "${options[@]}" CFLAGS=-O2 CXXFLAGS=-O2 && make -j "$(nproc)") \
        >"$folder/bochs.log" 2>&1; then
        tail -n 20 "$folder/bochs.log" >&2
        say "The emulator could not be built: see $folder/bochs.log"
        return 1
    fi
    as --32 "$here/boot.S" -o "$folder/boot.o" || return 1
    ld -m elf_i386 -Ttext 0 -e 0 --oformat binary "$folder/boot.o" -o "$folder/boot.rom" || return 1
    head -c 32768 /dev/zero >"$folder/vga.rom" # the emulator insists on one; nobody runs it
}

mkdir -p "$folder"
[ "$(cat "$folder/recipe" 2>/dev/null)" != "$recipe" ] || exit 0
if ! have_kernel || ! have_source; then
    if ! { prepare_apt && { have_kernel || fetch_kernel; } && { have_source || fetch_source; }; }; then
        say "What the emulated machines are made of cannot be had."
        exit 77
    fi
fi
build_emulator || exit 1
printf '%s\n' "$recipe" >"$folder/recipe"
