#!/usr/bin/env bash
# Looks at a running quern-server as an operator would, every five minutes, and says in one line how it is.
# Stands alone, so that it can be copied to /opt/scripts.
set -uo pipefail
export LC_ALL=C

usage() {
    cat <<'END'
Usage: llm-health-check.sh [OPTION...]

Checks the local LLM service: does it answer /health, how long does a short completion take, how much memory does it use,
how often was it restarted, did the kernel kill it for memory, how many requests were refused with a 503. Prints one line with
performance data, and exits as monitoring plugins do: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. What cannot be measured here
(no systemd, no journal, no /metrics) is called unknown in the line and does not change the exit code; a check that cannot
judge the service at all (no curl, a wrong key) exits with 3.

  --url URL            the server (LLM_URL; http://127.0.0.1:8765)
  --unit NAME          its systemd unit (LLM_UNIT; local-llm)
  --key-file FILE      its API key is the first line of FILE (LLM_KEY_FILE; or the key itself in LLM_API_KEY)
  --webhook URL        POST a JSON object there whenever the status changes (LLM_WEBHOOK)
  --confirm            when the service is down, keep looking until it is back or the limit is reached
  --log FILE           one line a run (LLM_HEALTH_LOG; /var/log/llm-health.log); empty: none
  --metrics-log FILE   the figures of a run (LLM_METRICS_LOG; /var/log/llm-metrics.log); empty: none
  --state-dir DIR      what one run tells the next (LLM_STATE_DIR; $STATE_DIRECTORY or /var/lib/llm-health)
  --quiet              print nothing while all is well (for cron)
  --help               this text

Thresholds: WARNING above
  --max-rss BYTES      memory of the process (LLM_MAX_RSS; 2800000000)
  --max-response SEC   time of a short completion (LLM_MAX_RESPONSE; 10)
  --max-503 N          answers with status 503 a minute, /health not counted (LLM_MAX_503; 5)
CRITICAL above
  --max-down SEC       without an answer, or still loading (LLM_MAX_DOWN; 120)
  --max-restarts N     automatic restarts in the last hour (LLM_MAX_RESTARTS; 3)
and whenever the journal of the last hour has an OOM kill.

With cron instead of the systemd timer, in /etc/cron.d/llm-health:
  */5 * * * * root /opt/scripts/llm-health-check.sh --confirm --quiet
END
}

url=${LLM_URL:-http://127.0.0.1:8765}
unit=${LLM_UNIT:-local-llm}
key_file=${LLM_KEY_FILE:-}
webhook=${LLM_WEBHOOK:-}
log=${LLM_HEALTH_LOG-/var/log/llm-health.log}
metrics_log=${LLM_METRICS_LOG-/var/log/llm-metrics.log}
state_dir=${LLM_STATE_DIR:-${STATE_DIRECTORY:-/var/lib/llm-health}}
max_rss=${LLM_MAX_RSS:-2800000000}
max_response=${LLM_MAX_RESPONSE:-10}
max_503=${LLM_MAX_503:-5}
max_down=${LLM_MAX_DOWN:-120}
max_restarts=${LLM_MAX_RESTARTS:-3}
confirm=0 quiet=0

names=(OK WARNING CRITICAL UNKNOWN)
status=0          # the worst so far
parts=() perf=() figures=()

unusable() {
    printf 'LLM UNKNOWN - %s\n' "$*"
    exit 3
}

while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --confirm | --quiet) declare "${1#--}=1" ;;
        --url | --unit | --key-file | --webhook | --log | --metrics-log | --state-dir | --max-rss | --max-response | --max-503 | \
            --max-down | --max-restarts)
            [ $# -ge 2 ] || unusable "$1 needs a value (see --help)"
            name=${1#--}
            declare "${name//-/_}=$2"
            shift
            ;;
        *) unusable "unknown option $1 (see --help)" ;;
    esac
    shift
done
for name in max_rss max_response max_503 max_down max_restarts; do
    [[ ${!name} =~ ^[0-9]+(\.[0-9]+)?$ ]] || unusable "--${name//_/-} must be a number, not '${!name}'"
done
[[ $max_down =~ ^[0-9]+$ ]] || unusable "--max-down must be whole seconds, not '$max_down'"
command -v curl >/dev/null || unusable "curl is missing: apt-get install curl"
key=${LLM_API_KEY:-}
if [ -n "$key_file" ]; then
    [ -r "$key_file" ] || unusable "cannot read the key from $key_file"
    IFS= read -r key <"$key_file" || [ -n "$key" ] || unusable "$key_file has no key in its first line"
    key=${key%$'\r'}
fi
url=${url%/}

# raise LEVEL: CRITICAL outranks WARNING, which outranks UNKNOWN.
raise() {
    case $1$status in
        10 | 13 | 20 | 21 | 23 | 30) status=$1 ;;
    esac
}

above() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a + 0 > b + 0) }'; }

# The key goes to curl on standard input: other users can read a command line.
ask() {
    local config=''
    [ -z "$key" ] || config="header = \"Authorization: Bearer ${key//[\\\"]/\\&}\""
    curl -q --silent --globoff --noproxy '*' --connect-timeout 5 --config - "$@" <<<"$config"
}

# ---- what the last run left ----

state_file=$state_dir/state
down_since='' last_503='' last_time='' notified=''
if ! mkdir -p -- "$state_dir" 2>/dev/null || [ ! -w "$state_dir" ]; then
    echo "llm-health-check: cannot write to $state_dir: nothing is remembered from run to run" >&2
    state_file=''
elif command -v flock >/dev/null; then
    exec 9>>"$state_dir/lock"
    # The other run may be confirming an outage; its word is as good as this one's would be.
    flock -w 5 9 || unusable "another check is running"
fi
if [ -n "$state_file" ] && [ -f "$state_file" ]; then
    while IFS='=' read -r name value; do
        [[ $value =~ ^[0-9]{1,15}$ ]] || continue # a damaged file is as good as none
        case $name in
            down_since | last_503 | last_time | notified) declare "$name=$value" ;;
        esac
    done <"$state_file"
fi
now=$(date +%s)

# ---- what systemd knows ----

property() {
    command -v systemctl >/dev/null || return 1
    timeout 10 systemctl show --property="$1" --value -- "$unit" 2>/dev/null
}
pid=$(property MainPID) || pid=''
[[ $pid =~ ^[1-9][0-9]*$ ]] || pid=''
has_journal=0
if command -v journalctl >/dev/null && timeout 20 journalctl --quiet --lines=1 --output=cat >/dev/null 2>&1; then
    has_journal=1
fi

# journal_count ARGUMENT...: how many entries of the last hour match. Returns 1 when that cannot be said.
journal_count() {
    local lines code=0
    lines=$(timeout 30 journalctl --quiet --no-pager --output=json --output-fields=MESSAGE --since='-1h' "$@" 2>&1) || code=$?
    # journalctl's grep that finds nothing exits with 1 too, but without a word.
    [ "$code" -eq 0 ] || [ "$code$lines" = 1 ] || return 1
    grep -c '^{' <<<"$lines"
    return 0
}

# ---- does it answer ----

# look: sets health (ok, loading or down) and why.
look() {
    local answer code http
    answer=$(ask --max-time 5 --max-filesize 65536 --write-out '\n%{http_code}' "$url/health" 2>/dev/null)
    code=$?
    http=${answer##*$'\n'}
    case $code:$http in
        0:200) health=ok why='' ;;
        0:503) health=loading why='still loading' ;;
        0:*) health=down why="/health answers with HTTP $http" ;;
        7:*) health=down why='connection refused' ;;
        28:*) health=down why='no answer within 5 s' ;;
        *) health=down why="no answer (curl code $code)" ;;
    esac
}

look
if [ "$health" != ok ]; then
    if [ -z "$down_since" ]; then
        down_since=$now
        # A unit that has stopped knows better than we do since when.
        stopped=$(property InactiveEnterTimestamp) || stopped=''
        active=$(property ActiveState) || active=''
        if [[ $active = failed || $active = inactive ]] && [ -n "$stopped" ] &&
            stopped=$(date -d "$stopped" +%s 2>/dev/null); then
            [ "$stopped" -gt "$now" ] || down_since=$stopped
        fi
    fi
    [ "$down_since" -le "$now" ] || down_since=$now # the clock was set back
    while [ "$confirm" = 1 ] && [ "$health" != ok ] && [ $((now - down_since)) -le "$max_down" ]; do
        sleep 5
        now=$(date +%s)
        look
    done
fi
down=0
if [ "$health" = ok ]; then
    down_since=''
    parts+=('health ok')
else
    down=$((now - down_since))
    parts+=("down for $down s: $why")
    if [ "$down" -gt "$max_down" ]; then raise 2; else raise 1; fi
fi
figures+=("up=$([ "$health" = ok ] && echo 1 || echo 0)" "down_seconds=$down")

# ---- how fast ----

response=U
if [ "$health" = ok ]; then
    # The question is tiny, so this is mostly the wait behind other requests, and that is what a client feels.
    limit=$(awk -v n="$max_response" 'BEGIN { n = int(3 * n) + 1; print n < 30 ? 30 : n }')
    answer=$(ask --max-time "$limit" --max-filesize 1048576 --header 'Content-Type: application/json' \
        --write-out '\n%{http_code} %{time_total}' \
        --data '{"messages":[{"role":"user","content":"Say OK"}],"max_tokens":4,"temperature":0}' \
        "$url/v1/chat/completions" 2>/dev/null)
    code=$?
    read -r http seconds <<<"${answer##*$'\n'}"
    case $code:$http in
        0:200)
            if [[ $answer = *'"content":'* ]]; then
                response=$seconds
                parts+=("response $(awk -v s="$seconds" 'BEGIN { printf "%.2f", s }') s")
                above "$seconds" "$max_response" && raise 1
            else
                parts+=('the completion has no content')
                raise 1
            fi
            ;;
        0:401 | 0:403)
            parts+=("completion refused (HTTP $http): check the key (--key-file)")
            raise 3
            ;;
        0:503)
            parts+=('completion refused: the queue is full')
            raise 1
            ;;
        0:*)
            parts+=("completion failed (HTTP $http)")
            raise 1
            ;;
        28:*)
            response=$limit
            parts+=("no completion within $limit s")
            raise 1
            ;;
        *)
            parts+=("completion failed (curl code $code)")
            raise 1
            ;;
    esac
fi
figures+=("response_seconds=$response")
perf+=("response=$response$([ "$response" = U ] || echo s);$max_response;;0")

# ---- memory ----

exposition=''
if [ "$health" != down ]; then
    exposition=$(ask --fail --max-time 5 --max-filesize 4194304 "$url/metrics" 2>/dev/null) || exposition=''
fi
rss=U
if [ -n "$pid" ] && [ -r "/proc/$pid/status" ]; then
    rss=$(awk '/^VmRSS:/ { printf "%.0f", $2 * 1024 }' "/proc/$pid/status" 2>/dev/null)
elif [ -n "$exposition" ]; then
    rss=$(awk '$1 == "process_resident_memory_bytes" { printf "%.0f", $2; exit }' <<<"$exposition")
fi
if [[ $rss =~ ^[0-9]+$ ]]; then
    parts+=("RSS $(awk -v n="$rss" 'BEGIN { printf "%.0f", n / 1e6 }') MB")
    above "$rss" "$max_rss" && raise 1
else
    rss=U
    parts+=('RSS unknown')
fi
figures+=("rss_bytes=$rss")
perf+=("rss=$rss$([ "$rss" = U ] || echo B);$max_rss;;0")

# ---- restarts and OOM kills: entries that systemd marks with fixed ids, whatever language it speaks ----

restarts=U kills=U
if [ "$has_journal" = 1 ]; then
    case $unit in *.*) full=$unit ;; *) full=$unit.service ;; esac
    restarts=$(journal_count MESSAGE_ID=5eb03494b6584870a536b337290809b3 "UNIT=$full") || restarts=U
    kills=$(journal_count MESSAGE_ID=fe6faa94e7774663a0da52717891d8ef "UNIT=$full") || kills=U
    # The kernel's own word covers a server that runs outside its unit; one event must not count twice.
    kernel=$(journal_count _TRANSPORT=kernel --grep='Killed process [0-9]+ \(quern-server\)') || kernel=0
    if [ "$kills" != U ] && [ "$kernel" -gt "$kills" ]; then kills=$kernel; fi
fi
if [ "$restarts" = U ]; then
    parts+=('restarts and OOM kills unknown (no journal)')
else
    parts+=("$restarts restarts/h" "$kills OOM kills/h")
    above "$restarts" "$max_restarts" && raise 2
    above "$kills" 0 && raise 2
fi
figures+=("restarts_per_hour=$restarts" "oom_kills_per_hour=$kills")
perf+=("restarts=$restarts;;$max_restarts;0" "oom=$kills;;0;0")

# ---- refused requests: the server's own count, since the last run ----

refused=U count=''
if [ -n "$exposition" ]; then
    count=$(awk '/^quern:http_requests_total\{/ && /status="503"/ && !/route="\/health"/ { n += $NF }
        END { printf "%.0f", n }' <<<"$exposition")
    if [[ $last_503 && $last_time ]] && [ "$last_time" -le "$now" ]; then
        # A smaller count means a restarted server. Two runs close together must not make a rate out of one request.
        refused=$(awk -v n="$count" -v last="$last_503" -v t=$((now - last_time)) \
            'BEGIN { if (n < last) last = 0; if (t < 60) t = 60; printf "%.1f", (n - last) * 60 / t }')
    fi
fi
if [ "$refused" = U ]; then
    parts+=("503s unknown ($([ -n "$count" ] && echo 'first look' || echo 'no /metrics'))")
else
    parts+=("$refused 503/min")
    above "$refused" "$max_503" && raise 1
fi
figures+=("http_503_per_minute=$refused")
perf+=("http503=$refused;$max_503;;0" "down=${down}s;;$max_down;0")

# ---- tell ----

joined=$(printf ', %s' "${parts[@]}")
text="${joined:2}"
line="LLM ${names[status]} - $text"
stamp=$(date -u +%Y-%m-%dT%H:%M:%SZ)
[ "$quiet" = 1 ] && [ "$status" = 0 ] || printf '%s | %s\n' "$line" "${perf[*]}"

# append FILE LINE: a log that cannot be written must not hide the result.
append() {
    [ -n "$1" ] || return 0
    { printf '%s\n' "$2" >>"$1"; } 2>/dev/null || echo "llm-health-check: cannot write to $1" >&2
}
append "$log" "$stamp $line"
append "$metrics_log" "$stamp status=${names[status]} ${figures[*]}"

json_text() { printf '"%s"' "$(printf %s "$1" | tr -d '\000-\037' | sed 's/[\\"]/\\&/g')"; }

# On every change of status, and again until somebody took it. A first run that finds all well has nothing to tell.
if [ -z "$webhook" ]; then
    notified=$status
elif [ "$status" != "${notified:-0}" ]; then
    body=$(printf '{"status":"%s","code":%d,"previous":%s,"host":%s,"unit":%s,"time":"%s","text":%s}' \
        "${names[status]}" "$status" "$([ -n "$notified" ] && printf '"%s"' "${names[notified % 4]}" || echo null)" \
        "$(json_text "$(uname -n)")" "$(json_text "$unit")" "$stamp" "$(json_text "$line")")
    if curl -q --silent --fail --globoff --proto '=http,https' --connect-timeout 5 --max-time 10 --output /dev/null \
        --header 'Content-Type: application/json' --data-binary @- -- "$webhook" <<<"$body"; then
        notified=$status
    else
        echo "llm-health-check: the webhook did not take the message; it is sent again with the next run" >&2
    fi
else
    notified=$status
fi

if [ -n "$state_file" ]; then
    [ -n "$count" ] && last_503=$count last_time=$now
    printf '%s\n' "down_since=$down_since" "last_503=$last_503" "last_time=$last_time" "notified=$notified" \
        >"$state_file.new" 2>/dev/null && mv -f -- "$state_file.new" "$state_file" ||
        echo "llm-health-check: cannot write $state_file" >&2
fi
exit "$status"
