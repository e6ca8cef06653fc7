#!/usr/bin/env bash
# Boots a Debian with a real systemd in an emulated machine, all of it in memory, and runs tests/vm/check-service.sh there.
#
# Usage: tests/vm/run.sh QUERN_SERVER. Needs root, debootstrap, cpio and qemu-system-x86. The Debian is kept in build-vm/. Ends
# with 77 if the Debian cannot be made, 1 if the machine did not come to its end.
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../../scripts/common.sh"

[ -x "${1:-}" ] || die "usage: $0 QUERN_SERVER"
server=$1
folder=$root/build-vm
system=$folder/system
mkdir -p "$folder"

if [ ! -e "$folder/complete" ]; then
    say "Making a Debian in $folder (two minutes)"
    rm -rf "$system" "$folder/kernel"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,curl,procps bookworm "$system" >"$folder/debootstrap.log" 2>&1 || {
        tail -n 5 "$folder/debootstrap.log" >&2
        exit 77
    }
    rm -rf "$system"/var/cache/apt/archives/*.deb "$system"/usr/share/{doc,man,locale} "$system"/var/lib/apt/lists/* "$system"/etc/systemd/system/getty.target.wants
    package=$(apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" && $2 ~ /^linux-image/ { print $2; exit }')
    [ -n "$package" ] || { say "No kernel to be had: linux-image-cloud-amd64"; exit 77; }
    (cd "$folder" && rm -f linux-image-*.deb && apt-get download -qq "$package" && dpkg -x linux-image-*.deb kernel && rm -f linux-image-*.deb) || exit 77
    touch "$folder/complete"
fi

rm -rf "$system/srv"
mkdir -p "$system/srv/quern/models"
cp -r "$root/scripts" "$root/models.txt" "$system/srv/quern/"
cp "$root"/models/quern-tiny* "$system/srv/quern/models/"
cp "$root/tests/vm/check-service.sh" "$system/srv/"
strip -o "$system/srv/quern-server" "$server"
cat >"$system/etc/systemd/system/quern-check.service" <<'END'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /srv/check-service.sh
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStopPost=/bin/systemctl --no-block poweroff
END
mkdir -p "$system/etc/systemd/system/graphical.target.wants"
ln -sfn ../quern-check.service "$system/etc/systemd/system/graphical.target.wants/quern-check.service"
ln -sfn lib/systemd/systemd "$system/init"
(cd "$system" && find . \( -path './proc/*' -o -path './sys/*' -o -path './dev/*' \) -prune -o -print0 | cpio --null -o -H newc --quiet | gzip -1) >"$folder/initrd.gz"

say "Booting it"
kernel=$(find "$folder/kernel/boot" -name 'vmlinuz*' | head -n 1)
timeout 1200 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3500 -nographic -no-reboot -nic none -kernel "$kernel" -initrd "$folder/initrd.gz" \
    -append 'console=ttyS0 quiet systemd.unit=graphical.target systemd.show_status=0' </dev/null 2>&1 | sed -u 's|\r$||' | tee "$folder/console.log" |
    sed -u -n '/CHECK\|^==\|refused$/p' || true
grep -q '^CHECK END' "$folder/console.log" || {
    tail -n 30 "$folder/console.log" >&2
    die "the machine did not come to the end of its checks"
}
