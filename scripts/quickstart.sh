#!/usr/bin/env bash
# From a fresh clone to an answer: installs what is missing, builds, starts the server, asks it something.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'END'
Usage: scripts/quickstart.sh [MODEL] [--port N]
       scripts/quickstart.sh --stop [--port N]

Installs what is missing to build quern (Debian packages), builds it in build/, starts quern-server on 127.0.0.1:8765 in
the background, sends it a chat request and shows the answer and the speed.

  MODEL      a name from models.txt, which is fetched first if need be (./scripts/fetch-model.sh --list shows them), or
             the path of a .gguf file. Default: quern-tiny, which is shipped and needs no download
  --port N   another port than 8765
  --stop     stop the server that this script started
  --help     this text

Run again, it builds what has changed and starts the server anew.
END
}

model=quern-tiny port=8765 stop=0
model_given=0
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --stop) stop=1 ;;
        --port)
            if ! [[ ${2:-} =~ ^[1-9][0-9]{0,4}$ ]] || [ "$2" -gt 65535 ]; then die "--port needs a number from 1 to 65535"; fi
            port=$2
            shift
            ;;
        -*) die "unknown option $1 (see --help)" ;;
        *)
            [ "$model_given" = 0 ] || die "one model at a time (see --help)"
            model=$1
            model_given=1
            ;;
    esac
    shift
done

build=$root/build
server=$build/quern-server
pid_file=$build/quern-server-$port.pid
log_file=$build/quern-server-$port.log
url=http://127.0.0.1:$port

# own_server: prints the process id of the server that this script started on this port, if it still runs. The process
# must be our program: after a restart of the machine the number may belong to anyone.
own_server() {
    local pid exe
    pid=$(cat "$pid_file" 2>/dev/null) || return 1
    [[ $pid =~ ^[0-9]+$ ]] || return 1
    exe=$(readlink "/proc/$pid/exe" 2>/dev/null) || return 1
    [ "${exe% (deleted)}" = "$server" ] || return 1
    echo "$pid"
}

stop_server() {
    local i
    kill -TERM "$1" 2>/dev/null || true
    for ((i = 0; i < 100; i++)); do
        if ! kill -0 "$1" 2>/dev/null; then
            rm -f "$pid_file"
            return 0
        fi
        sleep 0.1
    done
    die "the server (process $1) does not end after 10 s; end it with: kill -KILL $1"
}

something_listens() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

if [ "$stop" = 1 ]; then
    if pid=$(own_server); then
        stop_server "$pid"
        say "Stopped the server on port $port."
    else
        say "No server started by this script runs on port $port."
    fi
    exit 0
fi

# Things that would end the run anyway are said before anything is installed or built.
if [[ $model = *.gguf ]]; then
    [ -r "$model" ] || die "cannot read the file $model"
    model_path=$(cd -- "$(dirname -- "$model")" && pwd)/$(basename -- "$model")
elif [ -z "$(model_field "$model" name)" ]; then
    die "unknown model '$model'. There are: $(model_names "$root/models.txt" | paste -s -d ' ');" \
        "or give the path of a .gguf file."
fi
if ! own_server >/dev/null && something_listens; then
    die "something else already listens on 127.0.0.1:$port." \
        "Stop it, or use another port: $0 --port $((port < 65535 ? port + 1 : 8765))"
fi
if ! [ -w "$root" ] || { [ -e "$build" ] && ! [ -w "$build" ]; }; then
    die "cannot write to $root (built by another user before?)." \
        "Use a clone of your own, or: sudo chown -R $(id -un) $(printf %q "$root")"
fi

say "== 1. What is needed"
mapfile -t packages < <(missing_build_packages; have curl || printf '%s\n' curl ca-certificates)
install_packages "${packages[@]}" || exit 1
check_meson
say "All there."

say "== 2. Build"
# Without the tests, which need the Check library; scripts/test.sh has its own folder.
configure "$build" --buildtype=release -Dtests=disabled >/dev/null ||
    die "meson could not configure the build; see $build/meson-logs/meson-log.txt"
meson compile -C "$build" >&2 || die "the build failed; the messages above say where"

say "== 3. Model"
if [ -z "${model_path:-}" ]; then
    model_path=$("$root/scripts/fetch-model.sh" "$model") || exit 1
fi

say "== 4. Start"
if pid=$(own_server); then
    say "Stopping the server that an earlier run started (process $pid)."
    stop_server "$pid"
fi
# Its own session, so that it outlives this terminal.
setsid nohup "$server" -m "$model_path" --host 127.0.0.1 --port "$port" >"$log_file" 2>&1 </dev/null &
pid=$!
echo "$pid" >"$pid_file"
disown

failed() {
    say "$1 Its last words:"
    tail -n 10 "$log_file" >&2
    die "the server did not start; the whole log is $log_file"
}
ready=0
for ((i = 0; i < 600; i++)); do
    kill -0 "$pid" 2>/dev/null || { rm -f "$pid_file"; failed "The server ended."; }
    health=$(curl -s -o /dev/null --max-time 5 -w '%{http_code}' "$url/health" || true)
    if [ "$health" = 200 ]; then
        ready=1
        break
    fi
    [ $((i % 10)) -ne 9 ] || printf '.' >&2
    sleep 0.2
done
[ "$i" -lt 10 ] || say ""
[ "$ready" = 1 ] || failed "The server is not ready after two minutes."
say "Ready: $url (process $pid, log $log_file)"

say "== 5. Ask"
question='Who are you?'
say "> $question"
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
status=$(curl -sS --max-time 300 -o "$answer" -w '%{http_code}' "$url/v1/chat/completions" -H 'Content-Type: application/json' \
    -d '{"messages":[{"role":"user","content":"'"$question"'"}],"max_tokens":100,"temperature":0}') || failed "No answer."
if [ "$status" != 200 ]; then
    cat "$answer" >&2
    failed "The server answered with HTTP $status."
fi
python3 - "$answer" <<'END' || die "the answer is not what it should be: $(cat "$answer")"
import json, sys
with open(sys.argv[1], encoding='utf-8') as file:
    reply = json.load(file)
print(reply['choices'][0]['message']['content'].strip())
timings, usage = reply.get('timings', {}), reply['usage']
print(f"\n{usage['completion_tokens']} tokens at {timings['predicted_per_second']:.1f} tokens/s, "
      f"after a prompt of {usage['prompt_tokens']} tokens at {timings['prompt_per_second']:.1f} tokens/s")
END

port_option=''
[ "$port" = 8765 ] || port_option=" --port $port"
cd_hint=''
[ "$(pwd -P)" = "$root" ] || cd_hint="cd $(printf %q "$root") && "
cat <<END

The server goes on running. Next:
  Talk to it:      curl $url/v1/chat/completions -H 'Content-Type: application/json' \\
                     -d '{"messages":[{"role":"user","content":"Hello"}]}'
  Stop it:         $cd_hint./scripts/quickstart.sh --stop$port_option
  A bigger model:  $cd_hint./scripts/quickstart.sh qwen2.5-1.5b-instruct$port_option
                   ($cd_hint./scripts/fetch-model.sh --list shows all)
END
