#!/usr/bin/env bash
# Boots a Debian with a real systemd as the first process of namespaces of its own, on this machine's kernel, and runs
# tests/boot/check-service.sh there.
#
# Usage: tests/boot/run.sh QUERN_SERVER [SUITE]. SUITE: bookworm (default), or another release of Debian. Needs root and
# debootstrap. The Debian is kept in build-boot/SUITE, and each run gets a fresh copy of it in memory (overlayfs). Nothing of
# this machine is changed: mounts, processes, network, host name and control groups are the namespaces' own. Ends with 77 if that
# cannot be made here, 1 if the system did not come to the end of its checks.
#
# Limits of memory and CPU come from control groups. Where the kernel keeps those controllers in hierarchies of version 1, as
# containers' hosts may do, the booted system gets them so, and the checks expect what version 1 can do.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../../scripts/common.sh"

cannot() {
    say "No systemd can be booted here: $*"
    exit 77
}

# ---- inside the mount namespace ----

# place_in GROUP: a group below it, for the system to be booted; this process enters it.
groups=()
place_in() {
    mkdir "$1/quern-boot-$$" && groups+=("$1/quern-boot-$$") && echo $$ >"$1/quern-boot-$$/cgroup.procs"
}

# enter_groups: puts this process into control groups that will be the booted system's roots. Sets $layout: unified or hybrid.
enter_groups() {
    local hierarchy controllers path folder=$1 root_of mine
    mapfile -t mine </proc/self/cgroup # at once: it changes with every step
    layout=unified
    mkdir -p "$folder"
    mount -t tmpfs tmpfs "$folder"
    while IFS=: read -r hierarchy controllers path; do
        case $hierarchy:$controllers in
            0:)
                mkdir "$folder/unified"
                mount -t cgroup2 cgroup2 "$folder/unified" || return 1
                # The nearest group that may pass on its controllers: this process's own may not, having a process in it.
                root_of=$folder/unified$path
                while [ "$root_of" != "$folder/unified" ] && [ "$root_of" != "$folder/unified/" ] &&
                    ! grep -q 'cpu.*memory.*pids' "$root_of/cgroup.subtree_control"; do
                    root_of=${root_of%/*}
                done
                for hierarchy in cpu memory pids; do
                    echo "+$hierarchy" >"$root_of/cgroup.subtree_control" || true
                done 2>/dev/null
                place_in "$root_of" || return 1
                ;;
            *:memory | *:cpu | *:cpuacct | *:cpu,cpuacct | *:pids | *:devices | *:blkio | *:name=systemd)
                [ "$controllers" = name=systemd ] || layout=hybrid
                mkdir "$folder/$controllers"
                mount -t cgroup -o "$controllers" cgroup "$folder/$controllers" || return 1
                place_in "$folder/$controllers$path" || return 1
                ;;
        esac
    done < <(printf '%s\n' "${mine[@]}")
}

# boot: as root of new namespaces of mounts: makes the others, and systemd in them.
boot() {
    local system=$1 work=$2 layout code=0 i
    mount -t tmpfs -o mode=755 tmpfs "$work"
    mkdir "$work/upper" "$work/scratch" "$work/system"
    mount -t overlay -o "lowerdir=$system,upperdir=$work/upper,workdir=$work/scratch" overlay "$work/system" ||
        cannot "overlayfs is missing"
    mkdir "$work/system/srv/log"
    mount --bind "$3" "$work/system/srv/log"
    enter_groups "$work/groups" || cannot "its control groups are not ours to divide"
    timeout --kill-after=10 "$4" unshare --mount --cgroup --uts --ipc --net --pid --fork --kill-child=KILL \
        "$0" --inside "$work/system" "$layout" || code=$?
    # The groups can go when the last process has gone, which a killed one does in its own time.
    for i in "${groups[@]}"; do echo $$ >"${i%/*}/cgroup.procs" || true; done
    for ((i = 0; i < 50; i++)); do
        find "${groups[@]}" -depth -type d -exec rmdir {} + 2>/dev/null && break
        sleep 0.1
    done
    return "$code"
}

# inside: as the first process of the new namespaces.
inside() {
    local name controllers
    cd "$1"
    hostname quern-boot
    mount -t proc -o nosuid,nodev,noexec proc proc
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
    mount -t tmpfs -o mode=755 tmpfs dev
    for name in null zero full random urandom tty; do
        : >"dev/$name"
        mount --bind "/dev/$name" "dev/$name"
    done
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
    mount -t tmpfs tmpfs dev/shm
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs tmpfs tmp
    if [ "$2" = unified ]; then
        mount -t cgroup2 cgroup2 sys/fs/cgroup
    else
        mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
        mkdir sys/fs/cgroup/unified
        mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
        for controllers in memory cpu cpuacct cpu,cpuacct pids devices; do
            grep -q ":$controllers:" /proc/self/cgroup || continue
            mkdir "sys/fs/cgroup/$controllers"
            mount -t cgroup -o "$controllers" cgroup "sys/fs/cgroup/$controllers"
            for name in ${controllers/,/ }; do [ -e "sys/fs/cgroup/$name" ] || ln -s "$controllers" "sys/fs/cgroup/$name"; done
        done
    fi
    pivot_root . mnt
    umount -l /mnt
    cd /
    exec env -i container=quern-boot PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --system --log-target=journal --show-status=no </dev/null >/dev/null 2>&1
}

case ${1:-} in
    --boot) shift; boot "$@"; exit ;;
    --inside) shift; inside "$@" ;;
esac

# ---- outside ----

[ -x "${1:-}" ] || die "usage: $0 QUERN_SERVER [SUITE]"
server=$1
suite=${2:-bookworm}
folder=$root/build-boot
system=$folder/$suite
[ "$(id -u)" -eq 0 ] || cannot "that takes root"
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
mkdir -p "$folder"
case $system in *[[:space:]]*) system=$work/$suite ;; esac # debootstrap takes no spaces: made anew each time, then
if [ ! -e "$system.complete" ]; then
    PATH=$PATH:/usr/sbin
    have debootstrap || cannot "debootstrap is not installed"
    say "Making a Debian ($suite) in $system: a minute or two"
    rm -rf "$system"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,curl,procps,iproute2,logrotate "$suite" "$system" \
        >"$folder/debootstrap.log" 2>&1 || {
        tail -n 5 "$folder/debootstrap.log" >&2
        cannot "debootstrap could not make a Debian (is the package mirror reachable?)"
    }
    rm -rf "$system"/var/cache/apt/archives/*.deb "$system"/var/lib/apt/lists/*
    touch "$system.complete"
fi

log=$work/log
mkdir "$work/overlay" "$log" "$work/lower"
mkdir -p "$work/lower/srv/quern/models" "$work/lower/etc/systemd/system/multi-user.target.wants"
cp -r "$root/scripts" "$root/config" "$root/models.txt" "$work/lower/srv/quern/"
cp "$root"/models/quern-tiny* "$work/lower/srv/quern/models/"
cp "$root/tests/boot/check-service.sh" "$work/lower/srv/"
strip -o "$work/lower/srv/quern-server" "$server"
cat >"$work/lower/etc/systemd/system/quern-check.service" <<'END'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /srv/check-service.sh
StandardOutput=append:/srv/log/checks
StandardError=append:/srv/log/checks
TimeoutStartSec=infinity
ExecStopPost=-/bin/bash -c 'journalctl --no-pager -b >/srv/log/journal'
ExecStopPost=/bin/systemctl --no-block --force --force poweroff
[Install]
WantedBy=multi-user.target
END
ln -s ../quern-check.service "$work/lower/etc/systemd/system/multi-user.target.wants/"

say "Booting it"
: >"$log/checks"
tail -n +1 -F "$log/checks" 2>/dev/null &
tail_pid=$!
unshare --mount --propagation private "$0" --boot "$work/lower:$system" "$work/overlay" "$log" 1500 && code=0 || code=$?
sleep 1.2 # tail looks once a second
kill "$tail_pid" 2>/dev/null || true
[ "$code" != 77 ] || exit 77
[ -s "$log/checks" ] || cannot "systemd did not come so far as to run a unit (unshare ended with $code)"
cp -- "$log/checks" "$log/journal" "$folder/" || true
if ! grep -q '^CHECK END' "$log/checks"; then
    tail -n 30 "$log/journal" >&2 || true
    die "the system did not come to the end of its checks; its journal: $folder/journal"
fi
