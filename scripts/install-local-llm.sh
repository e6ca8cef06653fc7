#!/usr/bin/env bash
# Installs quern as the systemd service local-llm, upgrades it, and takes it away again.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'END'
Usage: sudo scripts/install-local-llm.sh [--model NAME | --model-file PATH] [OPTION...]
       sudo scripts/install-local-llm.sh --upgrade [OPTION...]
       sudo scripts/install-local-llm.sh --uninstall [--purge]

Checks the machine, builds quern, tries the program out, installs it to /opt/quern and the model to /opt/llm-models, installs
and starts the systemd service local-llm, waits until it is healthy and asks it something. Run again, it changes what has
changed and nothing else; what you wrote into /etc/default/local-llm stays.

  --model NAME       a model of models.txt (default: the one that is installed, else qwen2.5-1.5b-instruct); downloaded if need be
  --model-file PATH  a model that is here already: for a machine without internet
  --binary PATH      install this quern-server instead of building one
  --ctx-size N       tokens a conversation may have. Default: what models.txt and config/openclaw.json have for the model, or
                     as much of it as this machine's memory allows; 2048 is enough for short tasks, OpenClaw's agents want 16384
  --port N           another port than 8765
  --upgrade          new program and units, the model and the settings as they are. The new program is tried out beside the
                     old one first; if the service is not healthy with it, the old one comes back
  --uninstall        stop and remove the service and the program; models, settings and cache stay
  --purge            with --uninstall: remove those too
  --dry-run          print every step and change nothing
  --force            go on although this machine is too small or too old for it
  --wait SECONDS     how long the service may take to become healthy (default: 300)
  --root DIR         install below DIR instead of / (an image, a test). The service is then not started by systemd:
                     the program is started directly for the check, and stopped
  --help             this text
END
}

action=install model='' model_file='' binary='' ctx_size='' port='' purge=0 dry_run=0 force=0 wait=300 prefix=''
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --upgrade | --uninstall)
            [ "$action" = install ] || die "--upgrade and --uninstall exclude each other"
            action=${1#--}
            ;;
        --purge) purge=1 ;;
        --dry-run) dry_run=1 ;;
        --force) force=1 ;;
        --model | --model-file | --binary | --ctx-size | --port | --wait | --root)
            [ -n "${2:-}" ] || die "$1 needs a value (see --help)"
            name=${1#--}
            [ "$name" != root ] || name=prefix
            declare "${name//-/_}=$2"
            shift
            ;;
        *) die "unknown option $1 (see --help)" ;;
    esac
    shift
done
[ -z "$model" ] || [ -z "$model_file" ] || die "--model and --model-file exclude each other"
if [ "$action" != install ] && [ -n "$model$model_file$ctx_size$port" ]; then
    die "--$action changes no settings:" \
        "--model, --model-file, --ctx-size and --port belong to an installation (run it without --$action)"
fi
[ "$purge" = 0 ] || [ "$action" = uninstall ] || die "--purge belongs to --uninstall"
is_number() { [[ $1 =~ ^[1-9][0-9]{0,8}$ ]]; }
[ -z "$ctx_size" ] || is_number "$ctx_size" || die "--ctx-size takes a number of tokens, not '$ctx_size'"
is_number "$wait" || die "--wait takes seconds, not '$wait'"
if [ -n "$port" ] && { ! is_number "$port" || [ "$port" -gt 65535 ]; }; then
    die "--port takes a number from 1 to 65535, not '$port'"
fi
if [ -n "$prefix" ]; then
    [ -d "$prefix" ] || die "--root: there is no folder $prefix"
    prefix=$(cd -- "$prefix" && pwd -P)
    [ "$prefix" != / ] || prefix=''
fi
[ "$dry_run" = 1 ] || [ -n "$prefix" ] || [ "$(id -u)" -eq 0 ] || die "this needs root: sudo $0 (or look first: $0 --dry-run)"

home=$prefix/opt/quern
program=$home/quern-server
previous=$home/previous # what the last change replaced
models=$prefix/opt/llm-models
units=$prefix/etc/systemd/system
settings=$prefix/etc/default/local-llm
proc=${QUERN_PROC:-/proc} # for tests
tiny=$root/models/quern-tiny-q4_k_m.gguf

# Whether systemd runs, and is the one to start what is installed.
managed() { [ -z "$prefix" ] && [ -d /run/systemd/system ]; }

step() { say "== $*"; }

# run COMMAND...: does it, or with --dry-run says it.
run() {
    if [ "$dry_run" = 1 ]; then
        say "would run: $(printf '%q ' "$@")"
    else
        "$@"
    fi
}

# too_small TEXT...: a reason not to install here, unless --force.
too_small() {
    [ "$force" = 1 ] || die "$* (--force goes on all the same.)"
    say "Warning: $*"
}

mb() { awk -v n="$1" 'BEGIN { printf "%.0f MB", n / 1e6 }'; }

# unit_default KEY: what the unit says.
unit_default() { sed -n "s/^Environment=\"\{0,1\}$1=\([^\"]*\)\"\{0,1\}$/\1/p" "$root/scripts/systemd/local-llm.service"; }

# setting KEY: what holds: the settings file, else the unit.
setting() {
    local value=''
    [ ! -r "$settings" ] || value=$(sed -n "s/^$1=//p" "$settings" | tail -n 1 | sed 's/^"\(.*\)"$/\1/')
    [ -n "$value" ] || value=$(unit_default "$1")
    printf '%s\n' "$value"
}

# ---- files: each change can be taken back ----

changed=() # files that this run has replaced or made

# install_file SOURCE TARGET MODE: puts a file in its place in one step, unless it is the same already; keeps what it replaces.
install_file() {
    local source=$1 target=$2 mode=$3
    if cmp -s -- "$source" "$target"; then
        say "As it should be: $target"
        return 0
    fi
    if [ "$dry_run" = 1 ]; then
        say "would install: $target"
        return 0
    fi
    if ! mkdir -p -- "$(dirname -- "$target")" "$previous" || ! rm -f -- "$previous/$(basename -- "$target")" ||
        { [ -e "$target" ] && ! cp -p -- "$target" "$previous/"; } ||
        ! install -m "$mode" -- "$source" "$target.new" || ! mv -f -- "$target.new" "$target"; then
        rm -f -- "$target.new"
        say "Cannot write $target: is the disk full, or read-only?"
        return 1
    fi
    changed+=("$target")
    say "Installed: $target"
}

# take_back: undoes this run's install_file calls.
take_back() {
    local target kept
    for target in "${changed[@]}"; do
        kept=$previous/$(basename -- "$target")
        if [ -e "$kept" ]; then
            mv -f -- "$kept" "$target"
            say "Back as it was: $target"
        else
            rm -f -- "$target"
            say "Removed again: $target"
        fi
    done
    changed=()
}

# ---- the machine ----

# The unit's MemoryHigh=, in units of 1,000,000 bytes.
unit_memory_mb() {
    sed -n 's/^MemoryHigh=\([0-9]*\)M$/\1/p' "$root/scripts/systemd/local-llm.service" | awk '{ printf "%d", $1 * 1.048576 }'
}

memory_mb() { awk -v key="$1:" '$1 == key { printf "%d", $2 / 976.5625 }' "$proc/meminfo"; }

check_machine() {
    local needed_mb=$1 download_bytes=$2 cores total available free folder version
    step "Checking the machine"
    case $(uname -m) in
        x86_64)
            if ! grep -m 1 '^flags' "$proc/cpuinfo" | grep -w avx2 | grep -w fma | grep -q -w f16c; then
                too_small "This CPU has no AVX2: quern would run on its scalar kernels, twenty times slower." \
                    "Choose a plan with a newer CPU."
            fi
            ;;
        aarch64) ;;
        *) die "quern runs on x86-64 and 64-bit ARM, not on $(uname -m)" ;;
    esac
    cores=$(nproc)
    [ "$cores" -ge 2 ] || say "Warning: one core only. The service will work at half the speed, and compete with everything else."
    total=$(memory_mb MemTotal)
    available=$(memory_mb MemAvailable)
    if [ "$total" -lt $((needed_mb + 1000)) ]; then
        too_small "Model and context need $needed_mb MB of memory and the system about 1000 MB, but this machine has $total MB." \
            "Choose a smaller model (scripts/fetch-model.sh --list) or a smaller --ctx-size."
    fi
    if [ "$available" -lt "$needed_mb" ] && ! service_runs; then
        say "Warning: only $available MB of memory are free now, and the model needs $needed_mb MB." \
            "End what is not needed, or the system will swap."
    fi
    if [ "$needed_mb" -gt "$(unit_memory_mb)" ]; then
        say "Warning: model and context may take $needed_mb MB, and the unit limits the service to 2.5 GB (MemoryHigh) and 3 GB" \
            "(MemoryMax). Raise them (systemctl edit local-llm), or take a smaller --ctx-size."
    fi
    folder=$models
    while [ ! -d "$folder" ]; do folder=$(dirname -- "$folder"); done
    free=$(df -P -k -- "$folder" | awk 'NR == 2 { print int($4 * 1.024) }') # in units of 1000 bytes
    if [ "$free" -lt $((download_bytes / 1000 + 100000)) ]; then
        die "not enough disk space below $folder: $(mb $((download_bytes + 100000000))) needed, $(mb $((free * 1000))) free." \
            "Make room, then run this again."
    fi
    if managed; then
        version=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
        [ "${version:-0}" -ge 250 ] ||
            say "Warning: systemd ${version:-?} is older than 250 and ignores some of the unit's sandboxing."
    else
        say "Note: systemd does not run here${prefix:+ (--root)}: the service is installed and enabled, but not started by it."
    fi
    say "$(uname -m), $cores cores, $total MB of memory ($needed_mb MB needed), $(mb $((free * 1000))) of disk free"
}

service_runs() { managed && systemctl --quiet is-active local-llm.service; }
socket_listens() { managed && systemctl --quiet is-active local-llm.socket; }
something_listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

check_port() {
    if something_listens "$1" && ! { [ "$1" = "$(setting LOCAL_LLM_PORT)" ] && { service_runs || socket_listens; }; }; then
        die "something else already listens on 127.0.0.1:$1 (ss -ltnp shows it). Stop it, or choose another port: --port"
    fi
}

# ---- the program ----

# Sets $candidate: the program that is to be installed.
get_candidate() {
    local packages
    if [ -n "$binary" ]; then
        step "Taking the program $binary"
        if ! [ -f "$binary" ] || ! [ -x "$binary" ]; then die "$binary is no program (--binary)"; fi
        candidate=$binary
        return 0
    fi
    step "Building"
    candidate=$root/build-install/quern-server
    if [ "$dry_run" = 1 ]; then
        say "would build: $candidate"
        return 0
    fi
    mapfile -t packages < <(missing_build_packages)
    install_packages "${packages[@]}" ||
        die "without them quern cannot be built here; --binary installs one that was built elsewhere"
    check_meson
    configure "$root/build-install" --buildtype=release -Dtests=disabled >/dev/null ||
        die "meson could not configure the build; see $root/build-install/meson-logs/meson-log.txt"
    meson compile -C "$root/build-install" quern-server >&2 ||
        die "the build failed; the messages above say where. Nothing has been changed."
    say "Built: $candidate"
}

server_pid='' server_log=''
work=$(mktemp -d)
# shellcheck disable=SC2317 # called by the trap
clean_up() {
    if [ -n "$server_pid" ]; then
        kill -KILL "$server_pid" 2>/dev/null || true
        wait "$server_pid" 2>/dev/null || true
    fi
    rm -rf -- "$work"
}
trap clean_up EXIT

# start_server COMMAND...: as a child, its messages in $server_log.
start_server() {
    server_log=$work/server.log
    : >"$server_log"
    # As the unit's LimitMEMLOCK=, where that is allowed.
    (ulimit -l unlimited 2>/dev/null || true; exec "$@" >"$server_log" 2>&1 </dev/null 9<&-) &
    server_pid=$!
}

stop_server() {
    local i
    [ -n "$server_pid" ] || return 0
    kill -TERM "$server_pid" 2>/dev/null || true
    for ((i = 0; i < 100; i++)); do
        kill -0 "$server_pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
    server_pid=''
}

# wait_healthy PORT: until /health says so. 1 if it does not in time, or the server has ended.
wait_healthy() {
    local end=$((SECONDS + wait)) status
    while [ "$SECONDS" -lt "$end" ]; do
        status=$(curl -s -o /dev/null --max-time 5 -w '%{http_code}' "http://127.0.0.1:$1/health" || true)
        [ "$status" != 200 ] || return 0
        if [ -n "$server_pid" ]; then
            kill -0 "$server_pid" 2>/dev/null || return 1
        elif managed && ! systemctl --quiet is-active local-llm.service; then
            return 1
        fi
        sleep 0.2
    done
    return 1
}

# ask PORT: a real completion; prints the answer and its speed. 1 if there is none.
ask() {
    local answer=$work/answer status key auth=() prompt generated
    key=$(setting QUERN_API_KEY)
    [ -z "$key" ] || auth=(-H "Authorization: Bearer $key")
    status=$(curl -sS --max-time 300 -o "$answer" -w '%{http_code}' "http://127.0.0.1:$1/v1/chat/completions" \
        -H 'Content-Type: application/json' "${auth[@]}" \
        -d '{"messages":[{"role":"user","content":"Who are you?"}],"max_tokens":60,"temperature":0}') || return 1
    if [ "$status" = 401 ] && [ -z "$key" ]; then
        say "It wants a key that is not in $settings (--api-key-file?); healthy as far as can be seen without it."
        return 0
    fi
    if [ "$status" != 200 ]; then
        say "It answered with HTTP $status: $(head -c 300 "$answer")"
        return 1
    fi
    # Enough of JSON for what our own server writes, so that no Python is needed here.
    say "> Who are you?"
    say "$(sed -n 's/.*"content":"\(\(\\.\|[^"\\]\)*\)".*/\1/p' "$answer" | head -n 1)"
    read -r prompt generated <<<"$(
        sed -n 's/.*"prompt_per_second":\([0-9.]*\).*"predicted_per_second":\([0-9.]*\).*/\1 \2/p' "$answer"
    )"
    [ -n "$generated" ] || { say "The answer is not what it should be: $(head -c 300 "$answer")"; return 1; }
    LC_ALL=C printf 'Speed: %.1f tokens/s (prompt: %.1f tokens/s)\n' "$generated" "$prompt" >&2
}

last_words() {
    if [ -n "$server_log" ]; then
        tail -n 10 "$server_log" >&2
    elif managed; then
        journalctl -u local-llm.service -n 10 --no-pager -o cat >&2 || true
    fi
}

# try_out: the candidate with the small model on a free port, beside whatever runs. Nothing is changed yet.
try_out() {
    local i trial_port=''
    step "Trying the program out, with the small model on a free port"
    if [ "$dry_run" = 1 ]; then
        say "would run: $candidate -m $tiny --port 0"
        return 0
    fi
    "$candidate" --version >"$work/version" 2>&1 || {
        cat "$work/version" >&2
        die "$candidate does not run on this machine. Nothing has been changed."
    }
    say "$(cat "$work/version")"
    if [ ! -r "$tiny" ]; then
        say "There is no $tiny: not tried out."
        return 0
    fi
    start_server "$candidate" -m "$tiny" --host 127.0.0.1 --port 0
    for ((i = 0; i < 100 && ${#trial_port} == 0; i++)); do
        kill -0 "$server_pid" 2>/dev/null || break
        trial_port=$(sed -n 's|^listening on http://.*:\([0-9]*\)$|\1|p' "$server_log")
        [ -n "$trial_port" ] || sleep 0.1
    done
    if [ -z "$trial_port" ] || ! wait_healthy "$trial_port" || ! ask "$trial_port"; then
        last_words
        die "the program does not work here, as its last words above may explain. Nothing has been changed."
    fi
    stop_server
    server_log=''
}

# ---- the model ----

# Sets $model_record (or ''), $model_name (in the API), $model_target, $model_bytes, $model_ram, and $model_source if it is a
# file; $model_known: the record that describes it, also when it is not fetched.
choose_model() {
    local name digest
    model_source='' model_known=''
    if [ -z "$model$model_file" ] && [ -f "$prefix$(setting LOCAL_LLM_MODEL)" ]; then
        # What is installed stays.
        model_target=$prefix$(setting LOCAL_LLM_MODEL)
        model_name=$(setting LOCAL_LLM_ALIAS)
        model_record=''
        model_bytes=$(stat -c %s -- "$model_target")
        model_ram=$((model_bytes / 1000000 + 250))
        for name in $(model_names "$root/models.txt"); do
            if [ "$(model_field "$name" file)" = "$(basename -- "$model_target")" ] &&
                [ "$(model_field "$name" bytes)" = "$model_bytes" ]; then
                model_known=$name
                model_ram=$(model_field "$name" ram_mb)
            fi
        done
        return 0
    fi
    if [ -n "$model_file" ]; then
        if ! [ -f "$model_file" ] || ! [ -r "$model_file" ]; then die "cannot read the file $model_file (--model-file)"; fi
        [ "$(head -c 4 -- "$model_file")" = GGUF ] || die "$model_file is no GGUF file (--model-file)"
        model_source=$(cd -- "$(dirname -- "$model_file")" && pwd)/$(basename -- "$model_file")
        model_bytes=$(stat -c %s -- "$model_source")
        model_record=''
        for name in $(model_names "$root/models.txt"); do
            [ "$(model_field "$name" bytes)" = "$model_bytes" ] ||
                [ "$(model_field "$name" file)" = "$(basename -- "$model_source")" ] || continue
            say "Checking the SHA-256 digest of $model_source ..."
            digest=$(sha256sum <"$model_source" | cut -d ' ' -f 1)
            if [ "$digest" = "$(model_field "$name" sha256)" ]; then
                model_record=$name
                say "It is $name, whole and verified."
            elif [ "$(model_field "$name" file)" = "$(basename -- "$model_source")" ]; then
                die "$model_source bears the name of $name, but is not that file (wrong size or digest):" \
                    "copy it again, or give it another name if it is another model"
            fi
            break
        done
        [ -n "$model_record" ] || say "Note: models.txt does not know this file; it is installed as it is."
        model_name=${model_record:-$(basename -- "$model_source" .gguf)}
        if [ -n "$model_record" ]; then
            model_ram=$(model_field "$model_record" ram_mb)
            model_target=$models/$(model_field "$model_record" file)
        else
            model_ram=$((model_bytes / 1000000 + 250))
            model_target=$models/$(basename -- "$model_source")
        fi
    else
        model_record=${model:-qwen2.5-1.5b-instruct}
        [ -n "$(model_field "$model_record" name)" ] ||
            die "unknown model '$model_record'. There are: $(model_names "$root/models.txt" | paste -s -d ' ');" \
                "or give a file with --model-file"
        model_name=$model_record
        model_bytes=$(model_field "$model_record" bytes)
        model_ram=$(model_field "$model_record" ram_mb)
        model_target=$models/$(model_field "$model_record" file)
        # Shipped, not downloaded.
        [ -n "$(model_field "$model_record" url)" ] || model_source=$root/models/$(model_field "$model_record" file)
    fi
    model_known=$model_record
    [[ ${model_target#"$prefix"} =~ ^[A-Za-z0-9/._+-]+$ ]] ||
        die "the model's path has unusual characters, which the unit cannot carry: $model_target. Rename the file."
    [[ $model_name =~ ^[A-Za-z0-9._+-]+$ ]] || die "the model's name has unusual characters: $model_name. Rename the file."
}

# Sets $context, the tokens that a conversation may have, and adds what they take to $model_ram; $context_why says where the
# number comes from.
choose_context() {
    local token_bytes limit declared was=''
    [ ! -r "$settings" ] || was=$(sed -n 's/^LOCAL_LLM_MODEL=//p' "$settings" | tail -n 1)
    declared=0 token_bytes=0
    if [ -n "$model_known" ]; then
        declared=$(model_field "$model_known" context)
        token_bytes=$(model_field "$model_known" token_bytes)
    fi
    if [ -n "$ctx_size" ]; then
        context=$ctx_size context_why='as asked for'
    elif [ "$was" = "${model_target#"$prefix"}" ]; then
        context=$(setting LOCAL_LLM_CTX_SIZE) context_why="as $settings says"
        [[ $context =~ ^[0-9]{1,8}$ ]] ||
            die "LOCAL_LLM_CTX_SIZE in $settings is no number: '$context'. Correct it, or pass --ctx-size"
    elif [ -z "$model_known" ]; then
        # The program knows what the model was trained for, and takes that or 2048.
        context=0 context_why="the program's own choice for this model; --ctx-size for another"
    else
        context=$declared context_why='what models.txt has for this model'
        limit=$(($(memory_mb MemTotal) - 1000))
        [ "$limit" -lt "$(unit_memory_mb)" ] || limit=$(unit_memory_mb)
        while [ "$context" -gt 2048 ] && [ $((model_ram + (context - 2048) * token_bytes / 1000000)) -gt "$limit" ]; do
            context=$((context / 2))
        done
        [ "$context" = "$declared" ] || context_why="not the $declared of models.txt: this machine has too little memory for them"
    fi
    [ "$context" -le 2048 ] || model_ram=$((model_ram + (context - 2048) * token_bytes / 1000000))
}

# What OpenClaw has to know of it.
tell_context() {
    local declared=$context
    [ -z "$model_known" ] || declared=$(model_field "$model_known" context)
    if [ "$context" = 0 ]; then
        say "Context: $context_why"
        return 0
    fi
    say "Context: $context tokens ($context_why)"
    if [ "$context" -lt 4000 ]; then
        say "  Enough for short tasks; OpenClaw refuses models below 4000 tokens for its agents."
    elif [ "$context" -lt 16384 ]; then
        say "  The first turn of an OpenClaw agent has some 12000 tokens: this may be too little for it."
    fi
    grep -q "\"$model_known\"" "$root/config/openclaw.json" || return 0
    if [ "$context" = "$declared" ]; then
        say "  config/openclaw*.json declare the same as contextWindow."
    else
        say "  Put the same number into contextWindow of $model_known in config/openclaw*.json, where it is $declared."
    fi
}

get_model() {
    step "Model $model_name"
    if [ -n "$model_source" ]; then
        if cmp -s -- "$model_source" "$model_target"; then
            say "Already here: $model_target"
            return 0
        fi
        run mkdir -p -- "$models"
        say "Copying $(mb "$model_bytes") from $model_source"
        run install -m 644 -- "$model_source" "$model_target.part" || die "cannot copy the model to $models: is the disk full?"
        run sync -- "$model_target.part"
        run mv -f -- "$model_target.part" "$model_target"
    elif [ -n "$model_record" ]; then
        run mkdir -p -- "$models"
        run "$root/scripts/fetch-model.sh" "$model_record" --dir "$models" >/dev/null ||
            die "the model could not be fetched, as said above; the same command continues." \
                "Offline? Copy the file here and use --model-file."
        run chmod 644 -- "$model_target"
    fi
    say "Model: $model_target"
}

# ---- settings and units ----

# with_setting FILE KEY VALUE: replaces the line of a key, or adds one.
with_setting() {
    if grep -q "^$2=" "$1"; then
        sed -i "s|^$2=.*|$2=$3|" "$1"
    else
        printf '%s=%s\n' "$2" "$3" >>"$1"
    fi
}

write_settings() {
    local new=$work/local-llm
    step "Settings"
    if [ -e "$settings" ]; then
        cp -- "$settings" "$new"
    else
        cat >"$new" <<'END'
# Settings of the service local-llm; after a change: systemctl restart local-llm
# LOCAL_LLM_FLAGS takes further flags of quern-server; /opt/quern/quern-server --help lists them.
# QUERN_API_KEY=KEY makes requests carry a key.
END
        with_setting "$new" LOCAL_LLM_PORT "$(unit_default LOCAL_LLM_PORT)"
        with_setting "$new" LOCAL_LLM_FLAGS "$(unit_default LOCAL_LLM_FLAGS)"
    fi
    with_setting "$new" LOCAL_LLM_MODEL "${model_target#"$prefix"}"
    with_setting "$new" LOCAL_LLM_ALIAS "$model_name"
    with_setting "$new" LOCAL_LLM_CTX_SIZE "$context"
    [ -z "$port" ] || with_setting "$new" LOCAL_LLM_PORT "$port"
    # It may hold a key: for root, as whom systemd reads it.
    install_file "$new" "$settings" 600
}

install_units() {
    local unit wanted drop_in=$units/local-llm.socket.d/port.conf
    step "Units"
    for unit in local-llm.service local-llm.socket; do
        install_file "$root/scripts/systemd/$unit" "$units/$unit" 644 || return 1
    done
    wanted=${port:-$(setting LOCAL_LLM_PORT)}
    if [ "$wanted" != "$(unit_default LOCAL_LLM_PORT)" ]; then
        printf '[Socket]\nListenStream=\nListenStream=127.0.0.1:%s\n' "$wanted" >"$work/port.conf"
        install_file "$work/port.conf" "$drop_in" 644 || return 1
    elif [ -e "$drop_in" ]; then
        if [ "$dry_run" = 1 ]; then
            say "would remove: $drop_in"
            return 0
        fi
        mv -f -- "$drop_in" "$previous/" || return 1
        changed+=("$drop_in")
        say "Removed: $drop_in"
    fi
}

was_changed() { [[ " ${changed[*]} " = *"/$1 "* ]]; }

# enable_link TARGET UNIT: what systemctl enable does, where no systemd can be asked.
enable_link() {
    local link=$units/$1.wants/$2
    [ "$(readlink -- "$link")" != "/etc/systemd/system/$2" ] || return 0
    mkdir -p -- "$units/$1.wants"
    ln -sfn "/etc/systemd/system/$2" "$link"
    say "Enabled: $2"
}

# Whoever connects while the service restarts waits at the socket, which stays; unless the socket itself has changed.
start_service() {
    if managed; then
        systemctl daemon-reload
        systemctl --quiet enable local-llm.service local-llm.socket 2>"$work/enable" || { cat "$work/enable" >&2; return 1; }
        systemctl reset-failed local-llm.service local-llm.socket 2>/dev/null || true
        if ! socket_listens || was_changed local-llm.socket || was_changed port.conf; then
            systemctl stop local-llm.service local-llm.socket
            systemctl start local-llm.socket || return 1
        fi
        timeout "$wait" systemctl restart local-llm.service || return 1
    else
        local flags
        enable_link multi-user.target local-llm.service
        enable_link sockets.target local-llm.socket
        say "Starting the program directly for the check."
        read -ra flags <<<"$(setting LOCAL_LLM_FLAGS)"
        QUERN_API_KEY=$(setting QUERN_API_KEY) start_server "$program" --model "$prefix$(setting LOCAL_LLM_MODEL)" \
            --alias "$(setting LOCAL_LLM_ALIAS)" --ctx-size "$(setting LOCAL_LLM_CTX_SIZE)" \
            --host 127.0.0.1 --port "$(setting LOCAL_LLM_PORT)" "${flags[@]}"
    fi
}

# check_service: starts it; 0 if it is healthy and answers.
check_service() {
    local port code=0
    port=$(setting LOCAL_LLM_PORT)
    start_service && wait_healthy "$port" && ask "$port" || code=1
    [ "$code" = 0 ] || last_words
    if ! managed; then
        stop_server
        server_log=''
    fi
    return "$code"
}

# After the program or a unit was replaced: back to what worked.
roll_back() {
    step "Rolling back"
    trap '' INT TERM HUP
    if [ ! -e "$previous/quern-server" ] && was_changed quern-server; then
        # There was nothing before.
        if managed; then systemctl --quiet disable --now local-llm.service local-llm.socket 2>/dev/null || true; fi
        rm -f -- "$units/multi-user.target.wants/local-llm.service" "$units/sockets.target.wants/local-llm.socket"
        take_back
        if managed; then systemctl daemon-reload; fi
        die "the service did not become healthy, as the words above may explain. The model stays in $models." \
            "Correct the cause and run this again."
    fi
    take_back
    if check_service; then
        die "the new version did not become healthy; the old one is back and works. What the new one said stands above."
    fi
    die "neither the new version nor the old one becomes healthy:" \
        "the cause lies elsewhere (the model file? memory? the settings in $settings?). Look: journalctl -u local-llm -n 50"
}

# shellcheck disable=SC2317 # called by the trap
interrupted() {
    say ""
    say "Interrupted."
    stop_server
    roll_back
}

switch_over() {
    local had_program=0
    [ ! -e "$program" ] || had_program=1
    step "Program"
    [ "$dry_run" = 1 ] || trap interrupted INT TERM HUP
    if ! install_file "$candidate" "$program" 755 || ! install_units; then roll_back; fi
    if [ "$action" = install ]; then write_settings || roll_back; fi
    step "Starting, and waiting until it is healthy"
    if [ "$dry_run" = 1 ]; then
        say "would run: systemctl daemon-reload; systemctl enable local-llm.service local-llm.socket;" \
            "systemctl restart local-llm.service"
        say "would ask it something, and take everything back if it does not answer"
        return 0
    fi
    if [ ${#changed[@]} -eq 0 ] && service_runs; then
        say "Nothing has changed, and it runs: not restarted."
        if ! wait_healthy "$(setting LOCAL_LLM_PORT)" || ! ask "$(setting LOCAL_LLM_PORT)"; then
            last_words
            die "the service runs but is not healthy. Restart it: systemctl restart local-llm; and look:" \
                "journalctl -u local-llm -n 50"
        fi
    elif ! check_service; then
        roll_back
    fi
    trap - INT TERM HUP
    [ "$had_program" = 0 ] || ! was_changed quern-server || say "The program before this one is kept: $previous/quern-server"
}

# ---- what was asked for ----

install_all() {
    if [ "$action" = upgrade ] && [ ! -e "$program" ]; then
        die "nothing is installed in $home: run this without --upgrade"
    fi
    choose_model
    choose_context
    local missing_bytes=0
    [ -f "$model_target" ] || missing_bytes=$model_bytes
    check_machine "$model_ram" "$missing_bytes"
    tell_context
    check_port "${port:-$(setting LOCAL_LLM_PORT)}"
    have curl || install_packages curl ca-certificates || exit 1
    get_candidate
    try_out
    if [ "$action" = install ]; then get_model; fi
    switch_over
    [ "$dry_run" = 0 ] || return 0
    local url
    url=http://127.0.0.1:$(setting LOCAL_LLM_PORT)
    step "Done"
    if managed; then
        say "The service local-llm answers on $url, and starts with the machine."
        say "  State:     systemctl status local-llm"
        say "  Log:       journalctl -u local-llm -f"
    else
        say "Installed and checked${prefix:+ below $prefix}; systemd starts it on $url when it boots."
    fi
    say "  Settings:  $settings, then systemctl restart local-llm"
    say "  Talk:      curl $url/v1/chat/completions -H 'Content-Type: application/json' -d" \
        "'{\"messages\":[{\"role\":\"user\",\"content\":\"Say OK\"}],\"max_tokens\":10}'"
    say "  Remove:    sudo $root/scripts/install-local-llm.sh --uninstall"
}

# remove PATH...: what is there of these, and says so.
remove() {
    local path
    for path in "$@"; do
        [ -e "$path" ] || [ -L "$path" ] || continue
        if [ "$dry_run" = 1 ]; then
            say "would remove: $path"
        else
            rm -rf -- "$path" || die "cannot remove $path"
            say "Removed: $path"
        fi
    done
}

# remove_folder FOLDER: if it is empty; else tells what is left.
remove_folder() {
    if [ ! -d "$1" ] || [ "$dry_run" = 1 ]; then return 0; fi
    rmdir --ignore-fail-on-non-empty -- "$1"
    [ ! -d "$1" ] ||
        say "Left in $1, because this script did not put it there: $(find "$1" -mindepth 1 -maxdepth 1 -printf '%f ')"
}

uninstall() {
    local name configured
    step "Removing the service"
    if [ ! -e "$units/local-llm.service" ] && [ ! -e "$program" ]; then say "It is not installed."; fi
    configured=$prefix$(setting LOCAL_LLM_MODEL)
    if managed && [ -e "$units/local-llm.service" ]; then
        run systemctl --quiet disable --now local-llm.service local-llm.socket
    fi
    remove "$units/multi-user.target.wants/local-llm.service" "$units/sockets.target.wants/local-llm.socket" \
        "$units/local-llm.service" "$units/local-llm.socket" "$units/local-llm.socket.d/port.conf"
    remove_folder "$units/local-llm.socket.d"
    if managed; then
        run systemctl daemon-reload
        [ "$dry_run" = 1 ] || systemctl reset-failed local-llm.service local-llm.socket 2>/dev/null || true
    fi
    step "Removing the program"
    remove "$program" "$program.new" "$previous"
    remove_folder "$home"
    if [ "$purge" = 0 ]; then
        say "Kept, where they are there: the models in $models, $settings, and the cache. --uninstall --purge removes them."
        return 0
    fi
    step "Removing models, settings and cache"
    for name in $(model_names "$root/models.txt"); do
        name=$models/$(model_field "$name" file)
        remove "$name" "$name.part" "$name.bad"
    done
    if [[ $configured = "$models"/* ]]; then remove "$configured" "$configured.part"; fi
    remove "$settings" "$prefix/var/cache/local-llm" "$prefix/var/cache/private/local-llm"
    remove_folder "$models"
}

# Two at once would take each other's changes back.
exec 9<"${BASH_SOURCE[0]}"
flock -n 9 || die "another run of this script is at work. If it hangs, end it first."
if [ "$action" = uninstall ]; then uninstall; else install_all; fi
