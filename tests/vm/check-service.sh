#!/usr/bin/env bash
# Runs inside the virtual machine that tests/vm/run.sh boots, as root under a real systemd: installs the service local-llm and
# holds it to its promises. Prints "CHECK ok NAME" or "CHECK FAILED NAME" for each, and "CHECK END".
cd /srv/quern || exit 1
install=scripts/install-local-llm.sh

check() {
    local name=$1
    shift
    if "$@"; then echo "CHECK ok $name"; else echo "CHECK FAILED $name"; fi
}
show() { systemctl show local-llm.service -p "$1" --value; }
is_active() { systemctl --quiet is-active local-llm.service; }
says_ok() {
    curl -s --max-time 60 http://127.0.0.1:8765/v1/chat/completions -H 'Content-Type: application/json' \
        -d '{"messages":[{"role":"user","content":"Say OK"}],"max_tokens":10,"temperature":0}' | grep -q '"content":"OK"'
}
# restarted_since N: within half a minute there were more than N restarts, and the service is up.
restarted_since() {
    local i
    for ((i = 0; i < 60; i++)); do
        if [ "$(show NRestarts)" -gt "$1" ] && is_active; then return 0; fi
        sleep 0.5
    done
    return 1
}

check install "$install" --model quern-tiny --binary /srv/quern-server --ctx-size 1024
check active is_active
check enabled systemctl --quiet is-enabled local-llm.service local-llm.socket
check answers says_ok
check metrics curl -s --fail -o /dev/null http://127.0.0.1:8765/metrics
check status test "$(show StatusText)" = 'serving quern-tiny on 127.0.0.1:8765'
check limits test "$(show MemoryMax) $(show MemoryHigh) $(show CPUQuotaPerSecUSec) $(show WatchdogUSec)" = '3221225472 2684354560 2s 1min'
main_pid=$(show MainPID)
status=/proc/$main_pid/status
check own-user test "$(awk '/^Uid:/ { print $2 }' "$status")" -gt 60000
check no-capabilities grep -q '^CapEff:.0000000000000000$' "$status"
check system-call-filter grep -q '^Seccomp:.2$' "$status"
check locked-in-memory test "$(awk '/^VmLck:/ { print $2 }' "$status")" -gt 4000
check cache-folder test -d /var/cache/private/local-llm
"$install" --binary /srv/quern-server >/tmp/again 2>&1
check again-changes-nothing test "$(show MainPID)" = "$main_pid"

# While somebody asks all the time: an upgrade, and a restart.
(
    asked=0 refused=0
    while [ ! -e /tmp/enough ]; do
        asked=$((asked + 1))
        curl -s -o /dev/null --max-time 60 http://127.0.0.1:8765/health || refused=$((refused + 1))
    done
    echo "$asked $refused" >/tmp/asked
) &
sleep 1
cp /srv/quern-server /srv/newer
printf '\0' >>/srv/newer
check upgrade "$install" --upgrade --binary /srv/newer
systemctl restart local-llm.service
sleep 1
touch /tmp/enough
wait
read -r asked refused </tmp/asked
echo "$asked requests, $refused refused"
check refuses-nobody test "$refused" = 0
check upgraded cmp -s /srv/newer /opt/quern/quern-server

printf '#!/bin/bash\ncase "$*" in *--version*|*"--port 0"*) exec /srv/quern-server "$@" ;; esac\nexit 1\n' >/srv/broken
chmod +x /srv/broken
"$install" --upgrade --binary /srv/broken --wait 60 >/tmp/broken 2>&1
check rolls-back grep -q 'the old one is back and works' /tmp/broken
check answers-after-rollback says_ok

restarts=$(show NRestarts)
kill -KILL "$(show MainPID)"
check restarts-after-a-crash restarted_since "$restarts"
mkdir -p /etc/systemd/system/local-llm.service.d
printf '[Service]\nWatchdogSec=4s\nTimeoutAbortSec=2s\n' >/etc/systemd/system/local-llm.service.d/test.conf
systemctl daemon-reload
systemctl restart local-llm.service
restarts=$(show NRestarts)
sleep 10
check watchdog-lets-it-idle test "$(show NRestarts)" = "$restarts"
kill -STOP "$(show MainPID)"
check watchdog-ends-what-is-stuck restarted_since "$restarts"
check said-why bash -c 'journalctl -u local-llm --no-pager -o cat | grep -q "Watchdog timeout"'

"$install" --uninstall --purge
check uninstalled test ! -e /opt/quern -a ! -e /etc/systemd/system/local-llm.service -a ! -e /opt/llm-models -a ! -e /var/cache/private/local-llm
check port-closed bash -c '! (exec 3<>/dev/tcp/127.0.0.1/8765) 2>/dev/null'
echo "CHECK END"
