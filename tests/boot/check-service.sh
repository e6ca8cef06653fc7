#!/usr/bin/env bash
# Runs as root under the systemd that tests/boot/run.sh boots: installs the service local-llm and holds it to its promises. Prints
# "CHECK ok NAME" or "CHECK FAILED NAME" for each, "CHECK skipped NAME: why", and "CHECK END".
cd /srv/quern || exit 1
install=scripts/install-local-llm.sh
url=http://127.0.0.1:8765
dropin=/etc/systemd/system/local-llm.service.d

check() {
    local name=$1
    shift
    if "$@" >/tmp/said 2>&1; then
        echo "CHECK ok $name"
    else
        echo "CHECK FAILED $name"
        tail -n 15 /tmp/said
    fi
}
skip() { echo "CHECK skipped $1: $2"; }
show() { systemctl show local-llm.service -p "$1" --value; }
is() { [ "$1" = "$2" ] || { echo "'$1' instead of '$2'"; return 1; }; }
at_least() { [ "$1" -ge "$2" ] || { echo "$1 is less than $2"; return 1; }; }
is_active() { systemctl --quiet is-active local-llm.service; }
# The guide's own question.
say_ok='{"model": "qwen2.5-1.5b-instruct", "messages": [{"role": "user", "content": "Say OK"}],
    "max_tokens": 10, "temperature": 0}'
says_ok() { says_ok_at "$url"; }
says_ok_at() {
    curl -sS --fail --max-time 60 "$1/v1/chat/completions" -H 'Content-Type: application/json' -d "$say_ok" |
        grep '"content":"OK"'
}
# soon COMMAND...: it succeeds within a minute.
soon() {
    local i
    for ((i = 0; i < 120; i++)); do
        if "$@"; then return 0; fi
        sleep 0.5
    done
    return 1
}
restarted_since() { [ "$(show NRestarts)" -gt "$1" ] && is_active && says_ok >/dev/null; }
has_booted() { at_least 2 "$(systemctl show -p NJobs --value)"; } # this unit's own start is a job
gave_up() { systemctl is-failed --quiet local-llm.service; }
all_refusals() { cat /tmp/asked.*; sort /tmp/refusals | uniq -c; ! grep -q -v ' 0$' /tmp/asked.*; }
journal() { journalctl -u local-llm --no-pager -o cat "$@"; }
low_exposure() {
    sed -n 's/.*Overall exposure level for [^:]*: \([0-9.]*\).*/\1/p' /tmp/security |
        awk '{ print; n++; e = $1 } END { exit !(n == 1 && e <= 1.5) }'
}
with_dropin() {
    mkdir -p "$dropin"
    printf '[Service]\n%s\n' "$@" >"$dropin/test.conf"
    systemctl daemon-reload
}
without_dropin() {
    rm -rf "$dropin"
    systemctl daemon-reload
}
# Everything that is on the disk but what a running system writes by itself.
files() {
    find / -xdev \( -path /proc -o -path /sys -o -path /tmp -o -path /run -o -path /srv -o -path /var/log/journal \
        -o -path /var/lib/systemd \) -prune -o -print | sort
}
# group_limit V2-FILE V1-CONTROLLER V1-FILE: what the kernel holds the service to.
group_limit() {
    local group
    group=$(show ControlGroup)
    cat "/sys/fs/cgroup$group/$1" 2>/dev/null || cat "/sys/fs/cgroup/unified$group/$1" 2>/dev/null ||
        cat "/sys/fs/cgroup/$2$group/$3"
}
# in_force NAME PATTERN V2-FILE V1-CONTROLLER V1-FILE
in_force() {
    if group_limit "$3" "$4" "$5" >/tmp/limit 2>/dev/null; then
        check "$1-in-force" grep -E "$2" /tmp/limit
    else
        skip "$1-in-force" "this machine's control groups have no $3"
    fi
}
[ -e /sys/fs/cgroup/cgroup.controllers ] && grep -q memory /sys/fs/cgroup/cgroup.controllers && memory_v2=1 || memory_v2=0

systemctl --version | head -n 1
soon has_booted
files >/tmp/files.before

# ---- installed by the installer ----

check dry-run "$install" --model quern-tiny --binary /srv/quern-server --dry-run
files >/tmp/files.dry
check dry-run-changes-nothing diff /tmp/files.before /tmp/files.dry
check install "$install" --model quern-tiny --binary /srv/quern-server
check active is_active
check enabled systemctl is-enabled local-llm.service local-llm.socket
check status-text is "$(show StatusText)" 'serving quern-tiny on 127.0.0.1:8765'
# With Type=notify "Started" comes when READY=1 does: after the model.
check ready-after-loading bash -c "journalctl -u local-llm --no-pager -o cat |
    grep -n -m 3 -E '^listening|^model quern-tiny|^Started ' | cut -c 1-20 | tee /dev/stderr |
    tr '\n' ' ' | grep -q 'listening.*model quern-tiny.*Started'"
check main-pid-listens bash -c "ss -H -ltnp 'sport = :8765' | tee /dev/stderr | grep -q '127.0.0.1:8765 .*quern-server'"
check only-on-this-machine is "$(ss -H -ltn 'sport = :8765' | awk '{ print $4 }')" 127.0.0.1:8765

# ---- the guide's commands ----

check models bash -c "curl -sS --fail $url/v1/models | grep '\"id\":\"quern-tiny\"'"
check health bash -c "curl -sS --fail $url/health | grep '\"status\":\"ok\"'"
check metrics bash -c "curl -sS --fail $url/metrics | grep '^quern:requests_processing'"
check say-ok says_ok
check ps bash -c "ps aux | grep '[q]uern-server' | awk '{ print \$6/1024 \" MB\" }' | grep MB"
check journal-has-the-request bash -c "journalctl -u local-llm -n 50 --no-pager | grep 'POST /v1/chat/completions 200'"
check status-command bash -c 'systemctl status local-llm --no-pager | grep "serving quern-tiny"'
/opt/quern/quern-server -m /opt/llm-models/quern-tiny-q4_k_m.gguf --port 8766 >/tmp/by-hand 2>&1 &
by_hand=$!
check by-hand soon curl -sS --fail http://127.0.0.1:8766/health
kill "$by_hand"
wait "$by_hand"
check by-hand-ends-with-0 is "$?" 0

# ---- limits and sandbox, in force ----

check limits is "$(show MemoryMax) $(show MemoryHigh) $(show CPUQuotaPerSecUSec) $(show WatchdogUSec)" \
    '3221225472 2684354560 2s 1min'
in_force memory-max '^3221225472$' memory.max memory memory.limit_in_bytes
in_force memory-high '^2684354560$' memory.high memory no-such-limit-in-version-1
in_force cpu-quota '^(200000 100000|200000)$' cpu.max cpu cpu.cfs_quota_us
main_pid=$(show MainPID)
status=/proc/$main_pid/status
check own-user at_least "$(awk '/^Uid:/ { print $2 }' "$status")" 60000
check no-capabilities grep '^CapEff:.0000000000000000$' "$status"
check no-new-privileges grep '^NoNewPrivs:.1$' "$status"
check system-call-filter grep '^Seccomp:.2$' "$status"
check locked-in-memory at_least "$(awk '/^VmLck:/ { print $2 }' "$status")" 4000
check cache-folder test -d /var/cache/private/local-llm
systemd-analyze security --no-pager local-llm.service >/tmp/security
tail -n 1 /tmp/security
check exposure low_exposure
check nothing-ignored bash -c '! journalctl -b --no-pager | grep -E "local-llm.*(Unknown|Failed to parse|ignoring|not supported)"'
# A packet to another address does not leave the unit: no answer comes, where an unfiltered process learns at once that nobody
# listens.
ip address add 192.0.2.1/32 dev lo
with_dropin "ExecStartPost=/bin/bash -c 'exec 3<>/dev/tcp/127.0.0.1/8765'" \
    "ExecStartPost=-/usr/bin/timeout 3 /bin/bash -c '(exec 3<>/dev/tcp/192.0.2.1/80); echo The address 192.0.2.1 was reached.'"
systemctl restart local-llm.service
check unfiltered-would-be-refused bash -c '(exec 3<>/dev/tcp/192.0.2.1/80) 2>&1 | grep "Connection refused"'
check loopback-is-allowed is_active
check other-addresses-are-denied bash -c '! journalctl -u local-llm --no-pager -o cat | grep "192.0.2.1 was reached"'
without_dropin

# ---- installed again, and changed ----

systemctl restart local-llm.service
main_pid=$(show MainPID)
check install-again "$install" --binary /srv/quern-server
check again-changes-nothing is "$(show MainPID)" "$main_pid"
check other-port "$install" --binary /srv/quern-server --port 8770
check answers-there says_ok_at http://127.0.0.1:8770
check and-not-here bash -c '! (exec 3<>/dev/tcp/127.0.0.1/8765) 2>/dev/null'
check port-back "$install" --binary /srv/quern-server --port 8765

# ---- nobody is refused: five clients ask all the time, while it is upgraded and restarted ----

for client in 1 2 3 4 5; do
    (
        asked=0 refused=0
        while [ ! -e /tmp/enough ]; do
            asked=$((asked + 1))
            # The first two want answers, and on a connection each; the others ask for its state, which may be "loading".
            if [ "$client" -le 2 ]; then
                says_ok >/dev/null 2>>/tmp/refusals
            else
                curl -sS -o /dev/null --max-time 60 $url/health 2>>/tmp/refusals
            fi || refused=$((refused + 1))
        done
        echo "$asked $refused" >"/tmp/asked.$client"
    ) &
done
sleep 1
cp /srv/quern-server /srv/newer
printf '\0' >>/srv/newer
check upgrade "$install" --upgrade --binary /srv/newer
check upgraded cmp /srv/newer /opt/quern/quern-server
for pause in 0.3 0.7 1 1.5; do
    systemctl restart local-llm.service
    sleep "$pause"
done
sleep 1
touch /tmp/enough
wait
cat /tmp/asked.*
check refuses-nobody all_refusals
systemctl reset-failed local-llm.service # the restarts above count
systemctl stop local-llm.service
check starts-when-asked says_ok

# ---- upgrades that fail ----

printf '#!/bin/bash\ncase "$*" in *--version*|*"--port 0"*) exec /srv/quern-server "$@" ;; esac\n%s\n' \
    'echo "cannot go on" >&2; exit 1' >/srv/broken
chmod +x /srv/broken
"$install" --upgrade --binary /srv/broken --wait 60 >/tmp/broken 2>&1
check rolls-back grep 'the old one is back and works' /tmp/broken
check said-why-it-ended grep 'cannot go on' /tmp/broken
sed -i '$d' /srv/broken
echo 'exec sleep 1000' >>/srv/broken
"$install" --upgrade --binary /srv/broken --wait 8 >/tmp/broken 2>&1
check rolls-back-what-never-gets-ready grep 'the old one is back and works' /tmp/broken
check old-program-is-back cmp /srv/newer /opt/quern/quern-server
check answers-after-rollback says_ok
check nothing-left-failed is "$(systemctl --failed --plain --no-legend | grep -c local-llm)" 0

# ---- it falls, and gets up ----

restarts=$(show NRestarts)
kill -KILL "$(show MainPID)"
check restarts-after-a-crash soon restarted_since "$restarts"
with_dropin WatchdogSec=4s TimeoutAbortSec=2s
systemctl restart local-llm.service
restarts=$(show NRestarts)
sleep 10
check watchdog-lets-it-idle is "$(show NRestarts)" "$restarts"
kill -STOP "$(show MainPID)"
check watchdog-ends-what-is-stuck soon restarted_since "$restarts"
check said-so grep 'Watchdog timeout' <(journal)

sleep 1.1 # so that an earlier end is in another second
since=$(date '+%F %T')
systemctl stop local-llm.service 2>/dev/null # version 1 does not take a limit below what is in use
with_dropin MemoryMax=6M MemoryHigh=infinity MemorySwapMax=0
systemctl reset-failed local-llm.service
systemctl start local-llm.service >/dev/null 2>&1
without_dropin
if [ "$memory_v2" = 1 ]; then
    check killed-above-memory-max grep 'killed by the OOM killer\|oom-kill' <(journal)
elif [ -e /sys/fs/cgroup/memory ]; then
    check killed-above-memory-max grep "status=9/KILL" <(journal --since="$since")
else
    skip killed-above-memory-max "no control group of this machine limits memory"
fi
systemctl reset-failed local-llm.service local-llm.socket
systemctl restart local-llm.service
check comes-back-after-it says_ok

# ---- health check, by its timer ----

# As the README and config/ANLEITUNG.md say.
install -D -m 755 scripts/llm-health-check.sh /opt/scripts/llm-health-check.sh
cp scripts/systemd/llm-health-check.* /etc/systemd/system/
cp config/logrotate/local-llm /etc/logrotate.d/local-llm
mkdir -p /etc/systemd/system/llm-health-check.timer.d
printf '[Timer]\nOnCalendar=\nOnCalendar=*:*:0/5\nAccuracySec=1s\n' >/etc/systemd/system/llm-health-check.timer.d/test.conf
systemctl daemon-reload
check timer-enabled systemctl enable --now llm-health-check.timer
check timer-fires soon grep 'health ok, response ' /var/log/llm-health.log
check figures grep -E \
    'status=\S+ up=1 .* rss_bytes=[0-9]+ restarts_per_hour=[0-9]+ oom_kills_per_hour=[0-9]+ http_503_per_minute=' \
    /var/log/llm-metrics.log
check health-check-in-the-journal bash -c 'journalctl -u llm-health-check --no-pager -o cat | grep "^LLM "'
systemctl stop llm-health-check.timer
if [ "$memory_v2" = 1 ]; then
    /opt/scripts/llm-health-check.sh >/tmp/health
    check health-check-sees-the-kill grep -E 'LLM CRITICAL .* [1-9][0-9]* OOM kills/h' /tmp/health
fi
check logrotate bash -c 'logrotate --force /etc/logrotate.d/local-llm && ls /var/log/llm-health.log.1 /var/log/llm-metrics.log.1'

# ---- settings that cannot work ----

cp /etc/default/local-llm /srv/settings
sed -i 's|^LOCAL_LLM_MODEL=.*|LOCAL_LLM_MODEL=/opt/llm-models/gone.gguf|' /etc/default/local-llm
systemctl reset-failed local-llm.service
check missing-model-is-no-start bash -c '! systemctl restart local-llm.service'
check says-what-is-missing grep '/opt/llm-models/gone.gguf' <(journal -n 20)
check gives-up-at-last soon gave_up
/opt/scripts/llm-health-check.sh >/tmp/health
check health-check-is-critical grep -E 'LLM CRITICAL .* [4-9][0-9]* restarts/h|LLM CRITICAL .* 1[0-9] restarts/h' /tmp/health
# Somebody asks meanwhile: that must not cost the socket.
curl -s -o /dev/null --max-time 3 $url/health
cp /srv/settings /etc/default/local-llm
systemctl reset-failed local-llm.service
check restart-is-enough-after-that systemctl restart local-llm.service
check answers-again says_ok
check socket-is-back systemctl is-active local-llm.socket
sed -i 's|^LOCAL_LLM_FLAGS=.*|LOCAL_LLM_FLAGS=--no-such-flag|' /etc/default/local-llm
restarts=$(show NRestarts)
systemctl restart local-llm.service >/dev/null 2>&1
sleep 4
check wrong-flags-are-not-tried-again is "$(show NRestarts) $(show ExecMainStatus)" "0 2"
check says-which-flag grep 'no-such-flag' <(journal -n 20)
cp /srv/settings /etc/default/local-llm
systemctl reset-failed local-llm.service local-llm.socket
systemctl restart local-llm.service
check answers-after-that says_ok

# ---- removed ----

check uninstall "$install" --uninstall
check models-stay test -e /opt/llm-models/quern-tiny-q4_k_m.gguf -a -e /etc/default/local-llm
check port-closed bash -c '! (exec 3<>/dev/tcp/127.0.0.1/8765) 2>/dev/null'
check installs-over-what-stayed "$install" --binary /srv/quern-server
systemctl disable --quiet --now llm-health-check.timer
rm -rf /opt/scripts /etc/systemd/system/llm-health-check.* /etc/logrotate.d/local-llm /var/log/llm-* /var/lib/llm-health \
    /var/lib/logrotate/status
systemctl daemon-reload
check purge "$install" --uninstall --purge
files >/tmp/files.after
check leaves-nothing diff <(grep -v '^/opt$' /tmp/files.before) <(grep -v '^/opt$' /tmp/files.after)
check no-unit-left is "$(systemctl list-units --all --plain --no-legend 'local-llm*' | grep -c -v not-found)" 0
check no-process-left bash -c '! pgrep -a quern-server'
echo "CHECK END"
