#!/usr/bin/env bash
# Closes the LLM's port to the outside with ufw, and makes sure that SSH stays open.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

usage() {
    cat <<'END'
Usage: sudo scripts/setup-firewall.sh [--port N] [--ssh-port N]... [--yes]

Prints the ufw rules that it would set; with --yes it sets them, in this order:

  1. allow the SSH ports in use, so that nobody is locked out
  2. deny the LLM's port (ufw lets loopback through before any rule, so OpenClaw on this machine still reaches it)
  3. switch ufw on, if it is off

quern-server listens on 127.0.0.1 and cannot be reached from outside anyway; this holds should someone change that. The SSH
ports are those on which sshd listens, those in sshd's configuration, and that of the session this runs in. If no SSH port
can be found and ufw is off, it refuses, because switching ufw on could be the end of the session.

  --port N       the LLM's port (default: 8765)
  --ssh-port N   an SSH port, in addition to those found
  --yes          do it
  --help         this text

To undo it: sudo ufw delete deny 8765 (and sudo ufw disable, if it was off before).
END
}

port=8765 yes=0 ssh_ports=()
is_port() { [[ $1 =~ ^[1-9][0-9]{0,4}$ ]] && [ "$1" -le 65535 ]; }
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --yes) yes=1 ;;
        --port | --ssh-port)
            is_port "${2:-}" || die "$1 takes a port from 1 to 65535, not '${2:-}'"
            if [ "$1" = --port ]; then port=$2; else ssh_ports+=("$2"); fi
            shift
            ;;
        *) die "unknown option $1 (see --help)" ;;
    esac
    shift
done
have ufw || die "ufw is missing. Install it: apt-get install ufw"
[ "$(id -u)" -eq 0 ] || [ -n "${QUERN_TEST:-}" ] || die "this needs root, to look as well as to act: sudo $0"

# Where sshd listens now, what it is configured to, and the way this session came in: each can be the only one that knows.
while IFS= read -r found; do
    if is_port "$found"; then ssh_ports+=("$found"); fi
done < <(
    if have ss; then ss -H -l -t -n -p 2>/dev/null | awk '/"sshd"/ { sub(/.*:/, "", $4); print $4 }'; fi
    if have sshd; then sshd -T 2>/dev/null | awk '$1 == "port" { print $2 }'; fi
    # With socket activation it is systemd that listens.
    if have systemctl; then
        systemctl show --property=Listen ssh.socket 2>/dev/null | sed -n 's/.*:\([0-9][0-9]*\) (Stream).*/\1/p'
    fi
    [ -z "${SSH_CONNECTION:-}" ] || printf '%s\n' "${SSH_CONNECTION##* }"
)
mapfile -t ssh_ports < <(printf '%s\n' "${ssh_ports[@]}" | sed '/^$/d' | sort -nu)

status=$(LC_ALL=C ufw status verbose) || die "ufw status failed"
active=0
[[ $status = 'Status: active'* ]] && active=1

for ssh in "${ssh_ports[@]}"; do
    [ "$ssh" != "$port" ] || die "$port is a port of SSH here: denying it would lock you out. Pass the LLM's port with --port"
done
if [ ${#ssh_ports[@]} -eq 0 ]; then
    [ "$active" = 1 ] ||
        die "no SSH port found, and ufw is off: switching it on could lock you out. Pass --ssh-port N (usually 22)"
    say "No SSH port found; ufw is on already, so its rules for SSH stay as they are."
fi

commands=()
for ssh in "${ssh_ports[@]}"; do commands+=("ufw allow $ssh/tcp"); done
# First in the list: an earlier rule that allows more must not win.
commands+=("ufw prepend deny $port")
[ "$active" = 1 ] || commands+=("ufw --force enable")

say "ufw is $([ "$active" = 1 ] && echo on || echo off). SSH ports: ${ssh_ports[*]:-none found}."
if [ "$yes" = 0 ]; then
    say "Would run:"
    printf '%s\n' "${commands[@]}"
    say "Nothing was changed. To do it: sudo $0 --yes"
    exit 0
fi
for command in "${commands[@]}"; do
    say "$command"
    read -ra words <<<"$command"
    "${words[@]}" || die "'$command' failed; nothing after it was done. What is set now: ufw status numbered"
done
LC_ALL=C ufw status verbose >&2
status=$(LC_ALL=C ufw status)
grep -E -q "^$port( |/).*DENY" <<<"$status" || die "ufw does not list the rule for port $port; look at: ufw status numbered"
say "Done: port $port is closed to the outside."
